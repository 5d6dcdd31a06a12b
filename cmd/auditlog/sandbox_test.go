package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sandboxed is a shell with the exports of a sandbox that is up.
type sandboxed struct {
	*testing.T
	dir string // where its commands begin
	env []string
	end func()
}

func startSandbox(t *testing.T, args ...string) *sandboxed {
	t.Helper()
	s := &sandboxed{T: t, dir: t.TempDir()}
	c := exec.Command("auditlog", append([]string{"sandbox"}, args...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s.env = os.Environ()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		assignment, ok := strings.CutPrefix(lines.Text(), "export ")
		if !ok {
			t.Errorf("standard output has %q", lines.Text())
		}
		s.env = append(s.env, assignment)
		if strings.HasPrefix(assignment, "STORAGE_EMULATOR_HOST=") { // the last one
			break
		}
	}
	ended := false
	s.end = func() {
		if ended {
			return
		}
		ended = true
		c.Process.Signal(os.Interrupt)
		if err := c.Wait(); err != nil {
			t.Errorf("the sandbox ended with %v\n%s", err, stderr.String())
		}
	}
	t.Cleanup(s.end)
	return s
}

// shell prepares a command line.
func (s *sandboxed) shell(line string) *exec.Cmd {
	c := exec.Command("sh", "-c", line)
	c.Dir, c.Env = s.dir, s.env
	return c
}

// run runs a command line, which must succeed, and returns its output.
func (s *sandboxed) run(line string) string {
	s.Helper()
	out, err := s.shell(line).CombinedOutput()
	if err != nil {
		s.Errorf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// order orders a fault.
func (s *sandboxed) order(name string) (status int) {
	s.Helper()
	resp, err := http.Get(s.getenv("SANDBOX_FAULTS") + "/" + name)
	if err != nil {
		s.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (s *sandboxed) getenv(name string) string {
	for _, e := range s.env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// TestSandbox: there is a history, records come, what is ordered fails, and the next sandbox
// continues.
func TestSandbox(t *testing.T) {
	kept := filepath.Join(t.TempDir(), "kept")
	s := startSandbox(t, "--dir", kept, "--rate", "6000")
	objects := regexp.MustCompile(`(?m)^objects\t(\d+)$`)
	if got := objects.FindString(s.run("auditlog status")); got != "objects\t12" {
		t.Errorf("the history has %q", got)
	}
	for late := regexp.MustCompile(`"late": [1-9]`); !late.MatchString(s.run("auditlog run --json 2>log")); {
		// Of a hundred records a second, some come late.
	}
	for _, f := range sandboxFaults {
		if got := s.order(f.name); got != http.StatusOK {
			t.Errorf("the order of %q is answered with %d", f.name, got)
		}
	}
	s.order("scope")
	if out, err := s.shell("auditlog check").Output(); err == nil || !strings.Contains(string(out), "give the key the scope") {
		t.Errorf("with a key without its scope, check ends with %v and says\n%s", err, out)
	}
	if got := s.order("nothing"); got != http.StatusNotFound {
		t.Errorf("an unknown fault is answered with %d", got)
	}
	s.order("none")
	s.run("auditlog check")
	before := s.run("auditlog status --json | grep watermark_time")
	s.end()

	s = startSandbox(t, "--dir", kept, "--rate", "0")
	if after := s.run("auditlog status --json | grep watermark_time"); after != before {
		t.Errorf("the next sandbox has %s, want %s", after, before)
	}
	if got := s.run("auditlog backfill --from 39d 2>log"); !strings.Contains(got, "is collected: ") || strings.Contains(got, "no record") {
		t.Errorf("of the first sandbox's records, the next one has %s", got)
	}
}

var (
	ourCommand = regexp.MustCompile(`^([A-Z_]+=(\$\([^)]*\)|\S*) )*(auditlog|go run \./cmd/auditlog) `)
	blockLine  = regexp.MustCompile(`(?m)^ {4,}(.*)$`)
)

// TestReadmeCommands types the commands of README.md and docs, each in a sandbox of its own, with
// the example of a deployment's settings.
func TestReadmeCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("a sandbox each takes its time")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{"auditlog serve"} // which they name in a sentence
	for _, name := range append(docs, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range blockLine.FindAllStringSubmatch(string(text), -1) {
			if ourCommand.MatchString(m[1]) && !strings.ContainsAny(m[1], "[…") && !strings.Contains(m[1], " sandbox") {
				lines = append(lines, m[1])
			}
		}
	}
	if len(lines) < 10 {
		t.Errorf("there are only these commands: %q", lines)
	}
	for _, line := range lines {
		t.Run(line, func(t *testing.T) {
			s := startSandbox(t)
			s.prepare(root)
			// What reads the output need not be installed.
			line, _, _ := strings.Cut(strings.ReplaceAll(line, "go run ./cmd/auditlog", "auditlog"), " | ")
			if strings.Contains(line, " verify ") { // what is not collected cannot be right
				s.run("auditlog backfill --from 60d")
			}
			if strings.HasSuffix(line, " serve") {
				s.serve(line)
			} else {
				s.run(line)
			}
		})
	}
}

// prepare puts in place what commands use: the repository's files, a deployment's settings, and a
// gcloud that knows the key.
func (s *sandboxed) prepare(root string) {
	s.Helper()
	example, err := os.ReadFile(filepath.Join(root, "deploy", "settings.example"))
	if err != nil {
		s.Fatal(err)
	}
	for name, text := range map[string]string{"my.env": string(example), "gcloud": "#!/bin/sh\necho " + s.getenv("OPENAI_ADMIN_KEY") + "\n"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o700); err != nil {
			s.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(root, "internal"), filepath.Join(s.dir, "internal")); err != nil {
		s.Fatal(err)
	}
	s.env = append(s.env, "PATH="+s.dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// serve runs a command that serves, and the request that it prints on a terminal.
func (s *sandboxed) serve(line string) {
	s.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		s.Skip("curl is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	s.env = append(s.env, "PORT="+address[strings.LastIndex(address, ":")+1:])
	server := s.shell("exec " + line)
	if err := server.Start(); err != nil {
		s.Fatal(err)
	}
	defer server.Wait()
	defer server.Process.Kill()
	if err := await(address, nil); err != nil {
		s.Fatal(err)
	}
	_, request, _ := strings.Cut(fmt.Sprintf(howToTrigger, address, eventType, eventSource), "\n")
	if got := s.run(request); !strings.Contains(got, "HTTP/1.1 200") {
		s.Errorf("%s\nanswers\n%s", request, got)
	}
}
