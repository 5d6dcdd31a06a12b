package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMutationsMatch: each mutation has one place to strike, and its name to itself.
func TestMutationsMatch(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutations {
		data, err := os.ReadFile(filepath.Join("../../..", m.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), m.old); n != 1 || names[m.name] {
			t.Errorf("%s: %q occurs %d times in %s", m.name, m.old, n, m.file)
		}
		names[m.name] = true
	}
}
