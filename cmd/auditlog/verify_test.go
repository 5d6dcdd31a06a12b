package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestBar reads what a terminal shows while both sides are read, and after.
func TestBar(t *testing.T) {
	var out bytes.Buffer
	bar := newBar(&out)
	bar.Set(barSteps / 4)
	if got := screen(out.String()); !strings.HasPrefix(got, "Reading both sides  25% |") || !strings.Contains(got, "[0s:0s]") {
		t.Errorf("the terminal shows %q", got)
	}
	bar.Clear()
	if got := screen(out.String()); got != "" {
		t.Errorf("cleared, the terminal shows %q", got)
	}
}
