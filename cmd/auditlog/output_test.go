package main

import "testing"

// TestWrapped: paragraphs are broken at the width of a terminal, and no line of a table becomes part of another.
func TestWrapped(t *testing.T) {
	const text = "One paragraph\nof two lines.\n\n  a    the first of all\n  b    the second\n\n  a.very.long.name    text of it"
	for width, want := range map[int]string{
		0:   text,
		200: "One paragraph of two lines.\n\n  a    the first of all\n  b    the second\n\n  a.very.long.name    text of it\n",
		20:  "One paragraph of two\nlines.\n\n  a    the first of\n       all\n  b    the second\n\n  a.very.long.name\n      text of it\n",
	} {
		if got := wrapped(text, width); got != want {
			t.Errorf("%d columns:\n%q\nwant\n%q", width, got, want)
		}
	}
	const line = "  feed      reads 100 lines"
	for width, want := range map[int]string{
		0:  line,
		26: "  feed      reads 100\n            lines",
	} {
		if got := wrappedLine(line, width); got != want {
			t.Errorf("%d columns:\n%q\nwant\n%q", width, got, want)
		}
	}
}
