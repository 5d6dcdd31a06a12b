package proof

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/auditlog/internal/sim/harness"
	"github.com/google/go-cmp/cmp"
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

// root is the repository's.
const root = "../.."

// TestUpload: what gcloud uploads is the function's packages without their tests,
// and nothing else; Terraform's archive holds the same.
func TestUpload(t *testing.T) {
	want := []string{"go.mod", "go.sum"}
	var packages []string
	for _, dir := range functionPackages(t) {
		sources, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range sources {
			if !strings.HasSuffix(name, "_test.go") {
				want = append(want, strings.TrimPrefix(name, root+"/"))
			}
		}
		if name, ok := strings.CutPrefix(dir, "internal/"); ok {
			packages = append(packages, name)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, upload(t)); diff != "" {
		t.Errorf(".gcloudignore (-want +got):\n%s", diff)
	}
	terraform, err := os.ReadFile(root + "/deploy/terraform/function.tf")
	if err != nil {
		t.Fatal(err)
	}
	glob := fmt.Sprintf("internal/{%s}/*.go", strings.Join(packages, ","))
	if !strings.Contains(string(terraform), "packages = \""+glob+"\"") {
		t.Errorf("function.tf does not name the files %s", glob)
	}
	if _, err := exec.LookPath("terraform"); err != nil {
		return
	}
	base, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "terraform", "console")
	cmd.Dir = t.TempDir()
	cmd.Stdin = strings.NewReader(fmt.Sprintf("join(\"\\n\", sort([for f in setunion(fileset(%[1]q, \"*.go\"), fileset(%[1]q, %[2]q)) : f if !endswith(f, \"_test.go\")]))\n", base, glob))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("terraform: %v", err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasSuffix(line, ".go") {
			got = append(got, line)
		}
	}
	if diff := cmp.Diff(slices.DeleteFunc(want, func(name string) bool { return !strings.HasSuffix(name, ".go") }), got); diff != "" {
		t.Errorf("function.tf (-want +got):\n%s", diff)
	}
}

// functionPackages lists the folders of the packages that the function consists of.
func functionPackages(t *testing.T) (dirs []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.Dir}}{{end}}{{end}}", ".")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for dir := range strings.Lines(string(out)) {
		rel, err := filepath.Rel(base, strings.TrimSpace(dir))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, rel)
	}
	slices.Sort(dirs)
	return dirs
}

// TestBuildpack builds what gcloud uploads as Google's Go buildpack does, starts
// it as Cloud Run does, and triggers it as the push subscription of deploy/ does.
func TestBuildpack(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the function")
	}
	// The buildpack moves the source aside, and makes a module around it.
	app := t.TempDir()
	for _, name := range upload(t) {
		copyFile(t, filepath.Join(root, name), filepath.Join(app, "functions", name))
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
	h.Add(7, 5, 1)
	url, log := harness.Listen(t, harness.Command(t, filepath.Join(app, "app"), h.Env))
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
	log.WaitFor(t, `"message":"Run ended"`)
	for line := range strings.Lines(log.String()) {
		if !strings.HasPrefix(line, "{") && !strings.HasPrefix(line, "Serving function") {
			t.Errorf("a line of the log is no JSON: %s", line)
		}
	}
	if n := h.state(); n.Watermark == 0 || len(h.Names("openai-auditlog/")) != 1 {
		t.Errorf("state %+v, objects %v", n, h.Names(""))
	}
	h.Settle()
}

// upload lists what gcloud uploads: .gcloudignore has the syntax of .gitignore.
func upload(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		rel := strings.TrimPrefix(path, root+"/")
		switch {
		case err != nil:
			return err
		case d.IsDir() && (rel == ".git" || strings.HasSuffix(path, "/.terraform")):
			return filepath.SkipDir
		case d.Type().IsRegular() && rel != ".git": // a file in a work tree
			copyFile(t, path, filepath.Join(dir, rel))
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
