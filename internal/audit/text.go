package audit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const maxText = 300

// Shorten makes outside text safe for an error or a log: one line, no control characters, not long.
func Shorten(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) > maxText {
		s = string([]rune(s)[:maxText]) + "…"
	}
	return s
}

// Time formats Unix seconds for people and programs: RFC 3339, UTC.
func Time(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// Number groups the digits of n by thousands.
func Number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Count returns n and the noun, with an s unless n is 1.
func Count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return Number(n) + " " + noun
}

// Wrap breaks a line between words where it is longer than width, if that is not 0. The lines that
// follow are indented. A longer word stays whole, so that names and URLs can be copied.
func Wrap(line string, width, indent int) string {
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

// WholeNumber reads a JSON number without a fraction, in any notation.
func WholeNumber(v []byte) (int64, error) {
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, fmt.Errorf("%s is not a whole number", Shorten(string(v)))
	}
	return int64(f), nil
}

// second reads a time in seconds, and cuts off a fraction.
func second(v []byte) (int64, error) {
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || math.Abs(f) > 1<<53 {
		return 0, fmt.Errorf("%s is not a number of seconds", Shorten(string(v)))
	}
	return int64(math.Floor(f)), nil
}
