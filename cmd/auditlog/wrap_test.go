package main

import "testing"

func TestWrap(t *testing.T) {
	for _, test := range []struct {
		line          string
		width, indent int
		want          string
	}{
		{"as it is", 0, 2, "as it is"},
		{"as it is", 8, 2, "as it is"},
		{"  API       holds 800 records", 22, 12, "  API       holds 800\n            records"},
		{"café au lait", 7, 1, "café au\n lait"},
		{"see https://example.com/a/long/one now", 10, 2, "see\n  https://example.com/a/long/one\n  now"},
		{"  word   a/name/that/is/too/long", 12, 9, "  word   a/name/that/is/too/long"},
	} {
		if got := wrap(test.line, test.width, test.indent); got != test.want {
			t.Errorf("wrap(%q, %d, %d) is\n%s\nwant\n%s", test.line, test.width, test.indent, got, test.want)
		}
	}
}
