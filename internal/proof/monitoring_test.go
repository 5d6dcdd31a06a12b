package proof

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/auditlog"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/sim/fault"
)

// TestMonitoring compares what deploy/monitoring watches with what the function logs.
func TestMonitoring(t *testing.T) {
	var fields []string
	for _, a := range (auditlog.Summary{}).LogValue().Group() {
		fields = append(fields, a.Key)
	}
	placeholders := []string{"name", "metric", "hours", "lag_seconds"} // of terraform and deploy.sh

	files, err := filepath.Glob("../../deploy/monitoring/*.json")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../deploy/monitoring/*/*.json")
	if err != nil || len(more) < 16 {
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
		for _, m := range regexp.MustCompile(`user_\$\{metric\}_(\w+?)(?:_sum|_count)?\{`).FindAllSubmatch(data, -1) {
			used[string(m[1])] = true
		}
		if text := content.Documentation.Content; strings.Contains(text, "](") || strings.Contains(text, "RUN_TIMEOUT_SECONDS") {
			t.Errorf("%s has a link, which leads nowhere from a mail, or advises what deploy/ does not allow", file)
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

// TestAdvice: what to do about an answer is said in the same words in the log, by the check, in the alert
// that watches for it, and in docs/troubleshooting.md.
func TestAdvice(t *testing.T) {
	document, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../../deploy/monitoring/alerts/refused.json")
	if err != nil {
		t.Fatal(err)
	}
	var alert struct {
		Conditions []struct {
			ConditionMatchedLog struct{ Filter string }
		}
		Documentation struct{ Content string }
	}
	if err := json.Unmarshal(data, &alert); err != nil {
		t.Fatal(err)
	}
	filter := regexp.MustCompile(`jsonPayload\.message=~"(.*)"`).FindStringSubmatch(alert.Conditions[0].ConditionMatchedLog.Filter)
	files, err := filepath.Glob("../openai/testdata/error-*")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d answers, %v", len(files), err)
	}
	hints := map[string]string{}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		status, err := strconv.Atoi(strings.Split(filepath.Base(file), "-")[1])
		if err != nil {
			t.Fatal(err)
		}
		inBubble(t, func(t *testing.T, h *simulation) {
			h.APIFaults.Set(func(int, *http.Request) fault.Fault {
				return fault.Fault{Kind: fault.Refuse, Status: status, Body: string(body)}
			})
			_, err := h.Run()
			var e *openai.Error
			if !errors.As(err, &e) || e.Hint == "" || hints[e.Hint] != "" {
				t.Fatalf("%s: error %v, as %s", file, err, hints[e.Hint])
			}
			hints[e.Hint] = file
			h.WantLog("(" + e.Hint + ")")
			if !regexp.MustCompile(filter[1]).MatchString("Run failed: " + err.Error()) {
				t.Errorf("%s: the alert does not match %v", file, err)
			}
			if !strings.Contains(alert.Documentation.Content, "\n- "+e.Hint) || !strings.Contains(string(document), e.Hint+"`") {
				t.Errorf("%s: the alert or docs/troubleshooting.md does not say %q", file, e.Hint)
			}
			for f := range h.collector().Check(t.Context()) {
				if f.Check == "api" && f.Remedy != e.Hint {
					t.Errorf("%s: the check says %q, the log %q", file, f.Remedy, e.Hint)
				}
			}
		})
	}
	if n := strings.Count(alert.Documentation.Content, "\n- "); n != len(hints) {
		t.Errorf("the alert has %d remedies, there are %d", n, len(hints))
	}
}
