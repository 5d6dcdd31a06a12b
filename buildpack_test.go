package auditlog

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// functionMain is the program that the buildpack makes of the function.
const functionMain = `package main

import (
	"log"
	"os"

	_ "example.com/auditlog"
	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
)

func main() { log.Fatal(funcframework.Start(os.Getenv("PORT"))) }
`

// buildFunction builds the function's program as deploy/ has it built, but for
// the buildpack's module around it.
func buildFunction(t testing.TB) string {
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "function")
	if err := os.WriteFile(source, []byte(functionMain), 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", "disable_grpc_modules", "-ldflags", "-s -w", "-o", binary, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// TestBuildpack builds what gcloud uploads as Google's Go buildpack does, starts
// it as Cloud Run does, and triggers it as the push subscription of deploy/ does.
func TestBuildpack(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the function")
	}
	uploaded := upload(t)
	want := []string{"go.mod", "go.sum"}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		if !strings.HasSuffix(name, "_test.go") {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if !slices.Equal(uploaded, want) { // deploy/terraform has this rule
		t.Fatalf(".gcloudignore lets %q through, want %q", uploaded, want)
	}

	// The buildpack moves the source aside, and makes a module around it.
	app := t.TempDir()
	for _, name := range uploaded {
		copyFile(t, name, filepath.Join(app, "functions", name))
	}
	if err := os.WriteFile(filepath.Join(app, "main.go"), []byte(functionMain), 0o666); err != nil {
		t.Fatal(err)
	}
	const module = "example.com/auditlog"
	for _, args := range [][]string{
		{"mod", "init", "serverless_function_app"},
		{"mod", "edit", "-require", module + "@v0.0.0", "-replace", module + "@v0.0.0=./functions"},
		{"mod", "tidy"},
		{"build", "-ldflags", "-s -w", "-o", "app", "."},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = app
		cmd.Env = append(os.Environ(), "GOFLAGS=-tags=disable_grpc_modules", "CGO_ENABLED=0", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	info, err := os.Stat(filepath.Join(app, "app"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the function has %.1f MB", float64(info.Size())/1e6)

	h := overTCP(t)
	h.add(7, 5, 1)
	url, log := listen(t, functionProcess(t, filepath.Join(app, "app"), h.env))
	push := `{"message":{"data":"e30=","messageId":"1","publishTime":"2026-11-24T01:00:00Z"},"subscription":"projects/p/subscriptions/openai-auditlog"}`
	resp, err := http.Post(url+"/projects/p/topics/openai-auditlog", "application/json", strings.NewReader(push))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Errorf("answer %s %s %v", resp.Status, body, err)
	}
	log.waitFor(t, `"message":"Run ended"`)
	for line := range strings.Lines(log.String()) {
		if !strings.HasPrefix(line, "{") && !strings.HasPrefix(line, "Serving function") {
			t.Errorf("a line of the log is no JSON: %s", line)
		}
	}
	if n := h.state(); n.Watermark == 0 || len(h.names("openai-auditlog/")) != 1 {
		t.Errorf("state %+v, objects %v", n, h.names(""))
	}
	h.settle()
}

// upload lists what gcloud uploads: .gcloudignore has the syntax of .gitignore.
func upload(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == ".git" || path == ".terraform" || strings.HasSuffix(path, "/.terraform")):
			return filepath.SkipDir
		case d.Type().IsRegular():
			copyFile(t, path, filepath.Join(dir, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, ".gitignore")); err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	git("init", "-q")
	out := git("ls-files", "-z", "--others", "--exclude-from", ".gcloudignore")
	names := strings.Split(string(bytes.TrimSuffix(out, []byte{0})), "\x00")
	slices.Sort(names)
	return names
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o666); err != nil {
		t.Fatal(err)
	}
}
