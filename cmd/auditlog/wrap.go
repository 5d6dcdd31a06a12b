package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// widthOf is the width of the terminal that w is, 0 if it is none or does not say.
func widthOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// wrap breaks a line between words where it is longer than width, if that is not 0. The lines that
// follow are indented. A longer word stays whole, so that names and URLs can be copied.
func wrap(line string, width, indent int) string {
	if width == 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	var b strings.Builder
	column := 0
	for i, word := range strings.SplitAfter(line, " ") {
		size := utf8.RuneCountInString(strings.TrimRight(word, " "))
		if i > 0 && column > indent && column+size > width {
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		}
		b.WriteString(word)
		column += utf8.RuneCountInString(word)
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
}
