package verify

import (
	"bytes"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/go-json-experiment/json/jsontext"

	"example.com/auditlog/internal/audit"
)

// members returns a hash of each member of a record, however deep, with its place and value; sorted. A record
// that has all those of another holds it unchanged. An array is one value.
func members(raw []byte) []uint32 {
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var list []uint32
	_ = walk(dec, nil, &list) // it has been decoded before
	slices.Sort(list)
	return slices.Compact(list)
}

func walk(dec *jsontext.Decoder, place []byte, list *[]uint32) error {
	if dec.PeekKind() != '{' {
		v, err := dec.ReadValue()
		*list = append(*list, uint32(xxhash.Sum64(audit.Compact(place, v))))
		return err
	}
	*list = append(*list, uint32(xxhash.Sum64(append(place, '{'))))
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return err
		}
		if err := walk(dec, append(slices.Clip(place), name...), list); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// within reports whether all of a are in b; both are sorted.
func within(a, b []uint32) bool {
	for _, m := range a {
		if _, found := slices.BinarySearch(b, m); !found {
			return false
		}
	}
	return true
}
