package main

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/auditlog/internal/audit"
)

// printJSON writes what --json prints: one object.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// columns is the width of the terminal that w is, 0 if it is none.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

// colours says whether a terminal should get any: see no-color.org.
func colours() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// Codes of ECMA-48.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func paint(coloured bool, code, text string) string {
	if !coloured {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// wrapHelp breaks help texts and the texts of flags at the width of the terminal that w is, if it is one.
func wrapHelp(root *cobra.Command, w io.Writer) {
	cobra.AddTemplateFunc("columns", func() int { return columns(w) })
	cobra.AddTemplateFunc("wrapped", func(text string) string { return wrapped(text, columns(w)) })
	root.SetHelpTemplate(strings.Replace(root.HelpTemplate(), ". | trim", ". | wrapped | trim", 1))
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages", "Flags.FlagUsagesWrapped columns"))
}

// wrapped breaks each paragraph at this width, 0 for none. The lines of one that is indented stay lines, as in a table.
func wrapped(text string, width int) string {
	if width == 0 {
		return text
	}
	width = min(width, 100)
	var lines []string
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if !strings.HasPrefix(paragraph, " ") {
			paragraph = strings.ReplaceAll(paragraph, "\n", " ")
		}
		for line := range strings.SplitSeq(paragraph, "\n") {
			lines = append(lines, wrappedLine(line, width))
		}
		lines = append(lines, "")
	}
	return strings.Join(lines, "\n")
}

// wrappedLine breaks a line under its last column, or under an indent if that column has little room.
func wrappedLine(line string, width int) string {
	if width == 0 || utf8.RuneCountInString(line) <= width {
		return line
	}
	margin := 0
	if i := strings.LastIndex(line, "  "); i >= 0 {
		margin = i + 2
	}
	if margin <= width/2 {
		return audit.Wrap(line, width, margin)
	}
	return strings.TrimRight(line[:margin], " ") + "\n" + audit.Wrap("      "+line[margin:], width, 6)
}
