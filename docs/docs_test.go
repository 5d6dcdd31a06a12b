// Package docs_test holds the documents to what there is: links and their anchors, settings, commands
// and their flags.
package docs_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/store"
	"example.com/auditlog/internal/udm"
)

// documents returns each document's text, by its path from the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range files {
		files[i] = "docs/" + file
	}
	files = append(files, "README.md", "deploy/README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
	texts := map[string]string{}
	for _, file := range files {
		texts[file] = read(t, file)
	}
	return texts
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	block   = regexp.MustCompile("(?m)^(?:    |\t).*\n|^```[^`]*^```\n")
	span    = regexp.MustCompile("`[^`]+`")
	link    = regexp.MustCompile(`\]\(([^)]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchors returns what a document's headings can be linked by.
func anchors(text string) (list []string) {
	for _, h := range heading.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
		list = append(list, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, h[1]))
	}
	return list
}

func TestLinks(t *testing.T) {
	texts := documents(t)
	for file, text := range texts {
		for _, m := range link.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := file
			if target != "" {
				path = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(filepath.Join("..", path)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", file, m[1])
			} else if anchor != "" && !slices.Contains(anchors(texts[path]), anchor) {
				t.Errorf("%s: %s has no heading for the link %s", file, path, m[1])
			}
		}
	}
}

// codes returns a document's code: each indented line, each fenced block and each span.
func codes(text string) (list []string) {
	for _, b := range block.FindAllString(text, -1) {
		list = append(list, strings.TrimSpace(b))
	}
	for _, s := range span.FindAllString(block.ReplaceAllString(text, ""), -1) {
		list = append(list, strings.Trim(s, "`"))
	}
	return list
}

// helps has the help of each command of auditlog, by name, and of deploy.sh.
func helps(t *testing.T) map[string]string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "auditlog")
	output := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	output("go", "build", "-o", binary, "../cmd/auditlog")
	root := output(binary, "help")
	helps := map[string]string{"": root, "deploy.sh": output("bash", "../deploy/deploy.sh", "--help")}
	_, commands, _ := strings.Cut(root, "Available Commands:\n")
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+) `).FindAllStringSubmatch(commands, -1) {
		helps[m[1]] = output(binary, "help", m[1])
	}
	return helps
}

var (
	command = regexp.MustCompile(`(?:^|[\s/])(auditlog|deploy\.sh)( [^|;#>)]*|$)`)
	flag    = regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]*)`)
	name    = regexp.MustCompile(`^(?: --env-file \S+)? ([a-z]+)(?:\s|$)`)
)

// TestCommands: a command that a document shows exists, and has the flags that it is shown with. A span
// that begins with a flag shows one of ours.
func TestCommands(t *testing.T) {
	helps := helps(t)
	has := func(help, flag string) bool { return regexp.MustCompile(`[\s[|]` + flag + `[\s\]|]`).MatchString(help) }
	all := strings.Join(slices.Collect(maps.Values(helps)), "\n")
	for file, text := range documents(t) {
		for _, code := range codes(text) {
			if f := flag.FindStringSubmatch(code); strings.HasPrefix(code, "--") && !has(all, f[1]) {
				t.Errorf("%s: no command has the flag %s", file, code)
			}
			for _, m := range command.FindAllStringSubmatch(code, -1) {
				shown, args := m[1], m[2]
				if shown == "auditlog" {
					shown = ""
					if m := name.FindStringSubmatch(args); m != nil {
						shown = m[1]
					}
				}
				help, known := helps[shown]
				if !known {
					t.Errorf("%s: %q: there is no command %s", file, code, shown)
					continue
				}
				for _, f := range flag.FindAllStringSubmatch(args, -1) {
					if !has(help, f[1]) {
						t.Errorf("%s: %q: it has no flag %s", file, code, f[1])
					}
				}
			}
		}
	}
}

// TestSettings: the table has each setting with its default.
func TestSettings(t *testing.T) {
	text := read(t, "docs/settings.md")
	for _, s := range config.Settings() {
		value := s.Default
		if s.Required {
			value = "required"
		}
		row := regexp.MustCompile("(?m)^\\| `" + s.Name + "` \\| (.*?) \\|").FindStringSubmatch(text)
		if row == nil || value != "" && strings.Trim(row[1], "`") != value {
			t.Errorf("the row of %s is %q, want the default %q", s.Name, row, value)
		}
	}
}

// TestNames: a document names no setting that does not exist.
func TestNames(t *testing.T) {
	known := map[string]bool{ // of Go, of others' tools, and what UDM and SecOps call things
		"GOMEMLIMIT": true, "NO_COLOR": true, "STORAGE_EMULATOR_HOST": true, "OPENAI_AUDITLOG": true, "ON_SUCCESS": true,
		"FILE_COPY": true, "FILE_UNCATEGORIZED": true, "NETWORK_CONNECTION": true, "STATUS_UPDATE": true, "USER_UNCATEGORIZED": true, "GENERIC_EVENT": true,
	}
	for _, s := range config.Settings() {
		known[s.Name] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^#?(DEPLOY_[A-Z_]+)=`).FindAllStringSubmatch(read(t, "deploy/settings.example"), -1) {
		known[m[1]] = true
	}
	setting := regexp.MustCompile(`^([A-Z]+(?:_[A-Z]+)+)(?:=.*)?$`)
	for file, text := range documents(t) {
		for _, code := range codes(text) {
			if m := setting.FindStringSubmatch(code); m != nil && !known[m[1]] {
				t.Errorf("%s names %s, which is no setting", file, m[1])
			}
		}
	}
}

// TestMapping: the guide's mapping table has each field that auditlog udm maps.
func TestMapping(t *testing.T) {
	text := read(t, "docs/guide.md")
	for _, field := range new(udm.Fields).Absent() {
		if !strings.Contains(text, "\n| `"+field+"` | `") {
			t.Errorf("docs/guide.md has no row for %s", field)
		}
	}
}

// TestRemedies: the page on the log has each cause of a storage error.
func TestRemedies(t *testing.T) {
	text := read(t, "docs/troubleshooting.md")
	for cause := store.NoBucket; cause <= store.KeyUnusable; cause++ {
		if said, _, _ := strings.Cut(cause.Remedy(), ":"); !strings.Contains(text, "`"+said+"`") {
			t.Errorf("docs/troubleshooting.md has no line for %q", said)
		}
	}
}
