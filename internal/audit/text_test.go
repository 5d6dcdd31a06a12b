package audit

import (
	"math"
	"strings"
	"testing"
)

func TestShorten(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"as it is, #1", "as it is, #1"},
		{"  two \t\r\n lines  ", "two lines"},
		{"\x1b[31mred\x00\x7f\u0085end", "[31mred end"},
		{"a\u2028b\u2029c\u00a0d", "a b c d"},
		{"bad\xff\xfeutf8", "bad\uFFFDutf8"},
		{strings.Repeat("é", 300), strings.Repeat("é", 300)},
		{strings.Repeat("é", 301), strings.Repeat("é", 300) + "…"},
		{strings.Repeat("é", 300) + "\n ", strings.Repeat("é", 300)},
	} {
		if got := Shorten(tt.text); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestTime(t *testing.T) {
	for unix, want := range map[int64]string{
		0:          "1970-01-01T00:00:00Z",
		-1:         "1969-12-31T23:59:59Z",
		1795482000: "2026-11-24T01:00:00Z",
	} {
		if got := Time(unix); got != want {
			t.Errorf("%d: %s, want %s", unix, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int]string{
		0: "0", 7: "7", 99: "99", 999: "999", 1000: "1,000", 12345: "12,345", 999_999: "999,999", 1_000_000: "1,000,000",
		-1: "-1", -99: "-99", -999: "-999", -1000: "-1,000", -123_456: "-123,456", -1_234_567: "-1,234,567",
		math.MaxInt32: "2,147,483,647",
	} {
		if got := Number(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 records", 1: "1 record", 2: "2 records", 1000: "1,000 records", -1: "-1 records"} {
		if got := Count(n, "record"); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestWholeNumber(t *testing.T) {
	for number, want := range map[string]int64{
		"0": 0, "-0": 0, "7": 7, "-7": -7, "7.0": 7, "-7.00": -7, "1.5e1": 15, "1E3": 1000, "1e-0": 1, "0e9": 0,
		"9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
		"9007199254740993":    1<<53 + 1, // as it is: a float could not hold it
		"9007199254740992.0":  1 << 53,
		"-9007199254740992.0": -1 << 53,
	} {
		if got, err := WholeNumber([]byte(number)); err != nil || got != want {
			t.Errorf("%s: %d, error %v", number, got, err)
		}
	}
	for _, value := range []string{
		"1.5", "-0.1", "1e-1", "9007199254740994.0", "-9007199254740994.0", "9223372036854775808", "1e300", "1e400", "-1e400",
		"null", "true", `"7"`, "[7]", "{}", "",
	} {
		if got, err := WholeNumber([]byte(value)); err == nil || got != 0 || err.Error() != value+" is not a whole number" {
			t.Errorf("%s: %d, error %v", value, got, err)
		}
	}
	if _, err := WholeNumber([]byte("1.5" + strings.Repeat("0", 1000))); err == nil || len(err.Error()) > 2*maxText {
		t.Errorf("a long number: error %v", err)
	}
}

// TestWrap: words stay whole, and lines that follow are indented.
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
		if got := Wrap(test.line, test.width, test.indent); got != test.want {
			t.Errorf("Wrap(%q, %d, %d) is\n%s\nwant\n%s", test.line, test.width, test.indent, got, test.want)
		}
	}
}
