package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestCompactMatchesTheStandardLibrary(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	space := func() string { return strings.Repeat([]string{" ", "\n", "\t", "\r"}[rnd.IntN(4)], rnd.IntN(3)) }
	var value func(depth int) string
	value = func(depth int) string {
		switch n := rnd.IntN(8); {
		case n < 2 && depth < 5:
			return "{" + space() + `"a \" b"` + space() + ":" + space() + value(depth+1) + space() + "}"
		case n < 4 && depth < 5:
			return "[" + space() + value(depth+1) + space() + "," + space() + value(depth+1) + space() + "]"
		}
		return []string{`"x  y"`, `"\\"`, `"\\\""`, `""`, "1.50", "-0", "1E+5", "true", "null"}[rnd.IntN(9)]
	}
	for range 20_000 {
		s := space() + value(0) + space()
		var want bytes.Buffer
		if err := json.Compact(&want, []byte(s)); err != nil {
			t.Fatal(err)
		}
		if got := Compact(nil, []byte(s)); string(got) != want.String() {
			t.Fatalf("%q: %q, want %q", s, got, want.String())
		}
	}
}

// TestCompactFindsTheEndsOfStrings: whatever bytes a string holds, and however
// many, its end is found, for only white space after it may go.
func TestCompactFindsTheEndsOfStrings(t *testing.T) {
	for c := ' '; c <= 0xff; c++ {
		if c == '"' || c == '\\' {
			continue
		}
		for n := range 20 {
			fill := strings.Repeat(string([]byte{byte(c)}), n)
			for _, escape := range []string{``, `\"`, `\\`, `\\\"`} {
				s := "[ \"" + fill + escape + "\" , \"" + fill + escape + fill + " \"\t] "
				var want bytes.Buffer
				if err := json.Compact(&want, []byte(s)); err != nil {
					t.Fatal(err)
				}
				if got := Compact([]byte("before "), []byte(s)); string(got) != "before "+want.String() {
					t.Fatalf("%q: %q, want %q after what was there", s, got, want.String())
				}
			}
		}
	}
}

// TestBytesEqual: the lowest bit that is set is of the first byte looked for, and
// no bit is set where there is none.
func TestBytesEqual(t *testing.T) {
	for _, c := range []byte{'"', '\\'} {
		for other := range 256 {
			if byte(other) == c {
				continue
			}
			word := bytes.Repeat([]byte{byte(other)}, 8)
			if got := bytesEqual(binary.LittleEndian.Uint64(word), c); got != 0 {
				t.Fatalf("%q in %q: %x", c, word, got)
			}
			for i := 7; i >= 0; i-- { // behind the first, there may be more
				word[i] = c
				if got := bits.TrailingZeros64(bytesEqual(binary.LittleEndian.Uint64(word), c)); got != 8*i+7 {
					t.Fatalf("%q in %q: bit %d", c, word, got)
				}
			}
		}
	}
}
