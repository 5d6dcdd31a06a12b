// Command mutate breaks the collector's protocol, one rule at a time, and checks
// that a named test fails each time: a suite that passes whatever the code does
// proves nothing.
//
//	go run ./internal/proof/mutate              # all
//	go run ./internal/proof/mutate precondition # those whose names contain that
//
// The work tree stays as it is: the compiler gets the broken file through an
// overlay. The list is in mutations.go.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("looking for the module: %w", err)
	}
	var wg sync.WaitGroup
	turns := make(chan struct{}, runtime.NumCPU())
	errs := make([]error, len(mutations))
	chosen := 0
	for i, m := range mutations {
		if len(names) > 0 && !m.named(names) {
			continue
		}
		chosen++
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			began := time.Now()
			if errs[i] = m.check(ctx, strings.TrimSpace(string(root))); errs[i] != nil {
				fmt.Printf("NOT CAUGHT  %s: %v\n", m.name, errs[i])
				return
			}
			fmt.Printf("caught      %s: %s in %s, %.1f s\n", m.name, m.test, m.in, time.Since(began).Seconds())
		})
	}
	wg.Wait()
	if chosen == 0 {
		return fmt.Errorf("no mutation is named like %q", names)
	}
	if err := errors.Join(errs...); err != nil {
		return errors.New("not every mutation was caught")
	}
	fmt.Printf("all %d mutations were caught\n", chosen)
	return nil
}

// mutation is one way to break the collector: old, which occurs once in file,
// becomes new.
type mutation struct {
	name, file, old, new string
	in, test             string // package and test that must fail, with the path of a subtest where others take longer
}

func (m mutation) named(names []string) bool {
	for _, n := range names {
		if strings.Contains(m.name, n) {
			return true
		}
	}
	return false
}

// check returns nil where the test fails as it should.
func (m mutation) check(ctx context.Context, root string) error {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(root, m.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return fmt.Errorf("%s has %d times what is to be replaced; mend the list", m.file, n)
	}
	broken := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(broken, bytes.Replace(source, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: broken}})
	if err != nil {
		return err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return err
	}

	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(m.test), "/", "$/^") + "$"
	// Most of the time goes into building: the less code, optimizations and symbols, the better.
	cmd := exec.CommandContext(ctx, "go", "test", "-overlay", list, "-vet=off", "-tags=disable_grpc_modules", "-gcflags=-N -l", "-ldflags=-s -w", "-short", "-failfast", "-count=1", "-timeout=3m", "-run", pattern, "./"+m.in)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return fmt.Errorf("%s passes", m.test)
	case !m.failed(out):
		return fmt.Errorf("%s did not fail, but %w:\n%.2000s", m.test, err, out)
	}
	return nil
}

// failed reports whether it is the test that has failed, or the one around it
// before it came to that.
func (m mutation) failed(out []byte) bool {
	failed := func(test string) bool { return bytes.Contains(out, []byte("--- FAIL: "+test)) }
	around, _, sub := strings.Cut(m.test, "/")
	return failed(m.test) || sub && failed(around) && !failed(around+"/")
}
