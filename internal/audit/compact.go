package audit

import (
	"encoding/binary"
	"math/bits"
)

// Compact appends the JSON text src to dst, without white space between tokens and with every other byte
// unchanged. src may be where dst is appended.
//
// Text that is no JSON stays none: only white space beside a structural character goes, or at an end.
// Valid JSON has no other, and no two tokens become one.
func Compact(dst, src []byte) []byte {
	for i := 0; i < len(src); {
		start := i
		for i < len(src) && !isSpace(src[i]) {
			if src[i] == '"' {
				i = stringEnd(src, i)
			} else {
				i++
			}
		}
		dst = append(dst, src[start:i]...)
		space := i
		for i < len(src) && isSpace(src[i]) {
			i++
		}
		if start < space && i < len(src) && !isStructural(src[space-1]) && !isStructural(src[i]) {
			dst = append(dst, src[space:i]...)
		}
	}
	return dst
}

func isSpace(c byte) bool { return c <= ' ' && (c == ' ' || c == '\n' || c == '\r' || c == '\t') }

func isStructural(c byte) bool {
	switch c {
	case '{', '}', '[', ']', ':', ',':
		return true
	}
	return false
}

// stringEnd returns the index after the string that begins at src[i]. It reads eight bytes at a
// time where it can: most of a record is in strings.
func stringEnd(src []byte, i int) int {
	for i++; i < len(src); i++ {
		for i+8 <= len(src) {
			word := binary.LittleEndian.Uint64(src[i:])
			stops := bytesEqual(word, '"') | bytesEqual(word, '\\')
			if stops != 0 {
				i += bits.TrailingZeros64(stops) / 8
				break
			}
			i += 8
		}
		if i == len(src) {
			break
		}
		switch src[i] {
		case '"':
			return i + 1
		case '\\':
			i++ // skip the escaped byte, which may be a quote
		}
	}
	return len(src)
}

// bytesEqual sets the highest bit of the lowest byte of word that equals c, and no bit below it.
// Bits above it mean nothing.
func bytesEqual(word uint64, c byte) uint64 {
	const ones = 0x0101010101010101
	x := word ^ ones*uint64(c)
	return (x - ones) &^ x & (ones << 7)
}
