package proof

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"example.com/auditlog/internal/config"
)

// TestTerraformSettings: the module's settings are the collector's, but for those that follow from its other
// variables, and it takes the values that the collector takes.
func TestTerraformSettings(t *testing.T) {
	read := func(name string) string {
		data, err := os.ReadFile(root + "/deploy/terraform/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	_, variables, _ := strings.Cut(read("variables.tf"), `variable "settings"`)
	variables, _, _ = strings.Cut(variables, "\nvariable ")
	patterns := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^ +([A-Z_]+) += "(.*)"$`).FindAllStringSubmatch(variables, -1) {
		patterns[m[1]] = m[2]
	}
	m := regexp.MustCompile(`contains\(\[(.*?)\], name\) \? "(.*?)"`).FindStringSubmatch(variables)
	if m == nil {
		t.Fatal("variables.tf has no list of filters")
	}
	for name := range strings.SplitSeq(m[1], ", ") {
		patterns[strings.Trim(name, `"`)] = m[2]
	}

	function := read("function.tf")
	values := []string{"", "0", "1", "32", "33", "100", "101", "10000", "many", "-1", "1.5", "true", "false", "yes", "a,b", "a\tb", "https://api.example.com/v1", "ftp://example.com", "https://"}
	for _, s := range config.Settings() {
		follows := regexp.MustCompile(`\b` + s.Name + ` += `).MatchString(function)
		pattern, is := patterns[s.Name]
		delete(patterns, s.Name)
		switch {
		case is && follows && s.Name != "OVERLAP_SECONDS": // which has another default
			t.Errorf("%s is one of settings, and follows from other variables", s.Name)
		case !is && !follows && s.Name != "OPENAI_ADMIN_KEY":
			t.Errorf("%s cannot be set", s.Name)
		case !is:
			continue
		}
		for _, value := range values {
			_, err := config.Load(map[string]string{"GCS_BUCKET": "logs", "OPENAI_ADMIN_KEY": "sk-admin", s.Name: value})
			taken := regexp.MustCompile(pattern).MatchString(value)
			if taken != (err == nil) && value != "" { // empty is the default
				t.Errorf("%s=%q: taken is %v, and the collector says %v", s.Name, value, taken, err)
			}
		}
	}
	for name := range patterns {
		t.Errorf("%s is no setting of the collector", name)
	}
}
