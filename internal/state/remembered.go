package state

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"example.com/auditlog/internal/audit"
)

// Remembered is a collected record that a later read can return again.
type Remembered struct {
	audit.Identity
	Line uint64 // a hash of the record's line; 0: unknown
}

// Recent is a set of remembered records, sorted by identity. It never changes: two states can share one.
type Recent []Remembered

func byIdentity(a, b Remembered) int {
	return cmp.Or(strings.Compare(a.ID, b.ID), cmp.Compare(a.At, b.At), cmp.Compare(a.Type, b.Type))
}

// Find reports whether a record is remembered, and its line then. A record that is remembered without its
// type, as by an older release, is any of its id and time.
func (r Recent) Find(id audit.Identity) (line uint64, found bool) {
	for _, typ := range []uint64{id.Type, audit.AnyType} {
		id.Type = typ
		if i, found := slices.BinarySearchFunc(r, Remembered{Identity: id}, byIdentity); found {
			return r[i].Line, true
		}
	}
	return 0, false
}

// With returns r and more, which may be in any order. Of one in both, it has the line in more.
func (r Recent) With(more []Remembered) Recent {
	if !slices.IsSortedFunc(more, byIdentity) {
		more = slices.SortedStableFunc(slices.Values(more), byIdentity)
	}
	all := make(Recent, 0, len(r)+len(more))
	for _, m := range more {
		n, found := slices.BinarySearchFunc(r, m, byIdentity)
		all, r = append(all, r[:n]...), r[n:]
		if found {
			r = r[1:]
		}
		if last := len(all) - 1; last >= 0 && all[last].Identity == m.Identity {
			all[last] = m
		} else {
			all = append(all, m)
		}
	}
	return append(all, r...)
}

// Only returns those that keep returns true for.
func (r Recent) Only(keep func(Remembered) bool) Recent {
	kept := make(Recent, 0, len(r))
	for _, m := range r {
		if keep(m) {
			kept = append(kept, m)
		}
	}
	return kept
}

// byID yields the records of each id.
func (r Recent) byID() iter.Seq[Recent] {
	return func(yield func(Recent) bool) {
		for len(r) > 0 {
			n := 1
			for n < len(r) && r[n].ID == r[0].ID {
				n++
			}
			if !yield(r[:n]) {
				return
			}
			r = r[n:]
		}
	}
}
