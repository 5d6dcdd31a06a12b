package audit

import (
	"encoding/binary"
	"math/bits"
)

// Compact appends the JSON value src to dst, without white space between tokens and with every
// other byte unchanged. src must be valid JSON, and may be where dst is appended.
func Compact(dst, src []byte) []byte {
	for i := 0; i < len(src); {
		start := i
		for i < len(src) && src[i] > ' ' {
			if src[i] == '"' {
				i = stringEnd(src, i)
			} else {
				i++
			}
		}
		dst = append(dst, src[start:i]...)
		for i < len(src) && src[i] <= ' ' {
			i++
		}
	}
	return dst
}

// stringEnd returns the index after the string that begins at src[i]. It reads eight bytes at a
// time where it can: most of a record is in strings.
func stringEnd(src []byte, i int) int {
	for i++; ; i++ {
		for i+8 <= len(src) {
			word := binary.LittleEndian.Uint64(src[i:])
			stops := bytesEqual(word, '"') | bytesEqual(word, '\\')
			if stops != 0 {
				i += bits.TrailingZeros64(stops) / 8
				break
			}
			i += 8
		}
		switch src[i] {
		case '"':
			return i + 1
		case '\\':
			i++ // skip the escaped byte, which may be a quote
		}
	}
}

// bytesEqual sets the highest bit of the lowest byte of word that equals c, and no bit below it.
// Bits above it mean nothing.
func bytesEqual(word uint64, c byte) uint64 {
	const ones = 0x0101010101010101
	x := word ^ ones*uint64(c)
	return (x - ones) &^ x & (ones << 7)
}
