package proof

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/auditlog"
	"example.com/auditlog/internal/sim/fault"
)

// TestMonitoring holds what deploy/monitoring watches against what the function
// logs, and where its texts lead against the README.
func TestMonitoring(t *testing.T) {
	var fields []string
	for _, a := range (auditlog.Summary{}).LogValue().Group() {
		fields = append(fields, a.Key)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var anchors []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(readme, -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(string(m[1])), "")
		anchors = append(anchors, strings.ReplaceAll(anchor, " ", "-"))
	}
	placeholders := []string{"name", "metric", "hours", "lag_seconds", "readme_url"} // of terraform and deploy.sh

	files, err := filepath.Glob("../../deploy/monitoring/*.json")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../deploy/monitoring/*/*.json")
	if err != nil || len(more) < 14 {
		t.Fatalf("%d files of metrics and alerts, %v", len(more), err)
	}
	var metrics []string
	used := map[string]bool{}
	for _, file := range append(files, more...) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var content struct {
			Name          string `json:"name"`
			Documentation struct {
				Content string `json:"content"`
			} `json:"documentation"`
		}
		if err := json.Unmarshal(data, &content); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if name, ok := strings.CutPrefix(content.Name, "${metric}_"); ok {
			metrics = append(metrics, name)
		}
		check := func(what, pattern string, known []string) {
			for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(data, -1) {
				if !slices.Contains(known, string(m[1])) {
					t.Errorf("%s: %s %q is none of %q", file, what, m[1], known)
				}
			}
		}
		check("field", `jsonPayload\.run\.(\w+)`, fields)
		check("placeholder", `\$\{(\w+)\}`, placeholders)
		check("section of the README", `\$\{readme_url\}#([\w-]+)`, anchors)
		for _, m := range regexp.MustCompile(`user_\$\{metric\}_(\w+?)(?:_sum|_count)?\{`).FindAllSubmatch(data, -1) {
			used[string(m[1])] = true
		}
		if strings.Contains(file, "/alerts/") && !strings.Contains(content.Documentation.Content, "${readme_url}#") {
			t.Errorf("%s leads to no section of the README", file)
		}
	}
	for name := range used {
		if !slices.Contains(metrics, name) {
			t.Errorf("no metric is named %q", name)
		}
	}
	for _, name := range metrics {
		if !used[name] {
			t.Errorf("nothing uses the metric %q", name)
		}
	}
}

// TestAlertsOnLogLines: the lines that alerts look for are those that are logged.
func TestAlertsOnLogLines(t *testing.T) {
	// messages returns what the log has as messages.
	messages := func(h *simulation) (all []string) {
		for line := range strings.Lines(h.Logs.String()) {
			var entry struct {
				Message string `json:"message"`
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			all = append(all, entry.Message)
		}
		return all
	}
	tests := []struct {
		alert string
		f     func(h *simulation)
		want  bool
	}{
		{"refused", func(h *simulation) { h.refuse(401) }, true},
		{"refused", func(h *simulation) { h.refuse(403) }, true},
		{"refused", func(h *simulation) { h.refuse(404) }, false},
		{"kept", func(h *simulation) {
			h.Add(1, 5, 1)
			leaveStaged(h)
			data, err := h.Bucket.Read("logs", h.watch.state.Staged)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Bucket.Write("logs", h.watch.state.Staged, data); err != nil {
				t.Fatal(err)
			}
			h.unwatch()
			h.MustRun()
		}, true},
	}
	for _, tt := range tests {
		data, err := os.ReadFile("../../deploy/monitoring/alerts/" + tt.alert + ".json")
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`jsonPayload\.message=~\\"(.*?)\\"`).FindSubmatch(data)
		if m == nil {
			t.Fatalf("alert %s looks for no message", tt.alert)
		}
		pattern := regexp.MustCompile(string(m[1]))
		inSimulation(t, simulated[0], func(h *simulation) {
			tt.f(h)
			if all := messages(h); slices.ContainsFunc(all, pattern.MatchString) != tt.want {
				t.Errorf("alert %s matches %q: want %v", tt.alert, all, tt.want)
			}
		})
	}
}

// refuse does a run to which the API answers with a status.
func (h *simulation) refuse(status int) {
	h.T.Helper()
	h.decide = func(r *http.Request) fault.Fault {
		if toAPI(r) {
			return fault.Fault{Kind: fault.Refuse, Status: status}
		}
		return fault.Fault{}
	}
	if _, err := h.Run(); err == nil {
		h.T.Errorf("a run answered %d ended well", status)
	}
}
