package state

import (
	"cmp"
	"hash/maphash"
	"iter"
	"math/bits"
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

// With returns r and more, which may be in any order, and is no longer the caller's. Of one in both, or
// twice in more, the last counts.
func (r Recent) With(more []Remembered) Recent {
	if !slices.IsSortedFunc(more, byIdentity) {
		slices.SortStableFunc(more, byIdentity)
	}
	last := func(i int) bool { return i == len(more)-1 || more[i].Identity != more[i+1].Identity }
	n := 0
	for i, m := range more {
		if last(i) {
			more[n] = m
			n++
		}
	}
	more = more[:n]
	switch {
	case len(more) == 0:
		return r
	case len(r) == 0:
		return more
	}
	all := make(Recent, 0, len(r)+len(more))
	for _, m := range more {
		n, found := slices.BinarySearchFunc(r, m, byIdentity)
		all, r = append(append(all, r[:n]...), m), r[n:]
		if found {
			r = r[1:]
		}
	}
	return append(all, r...)
}

// Only returns those that keep returns true for.
func (r Recent) Only(keep func(Remembered) bool) Recent {
	first := slices.IndexFunc(r, func(m Remembered) bool { return !keep(m) })
	if first < 0 {
		return r
	}
	kept := append(make(Recent, 0, len(r)), r[:first]...)
	for _, m := range r[first:] {
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

// Index finds remembered records.
type Index struct {
	records Recent
	slots   []uint32 // a hash table: positions in records, from 1
	seed    maphash.Seed
}

// NewIndex returns an index of r.
func NewIndex(r Recent) Index {
	x := Index{r, make([]uint32, 1<<bits.Len(uint(2*len(r)))), maphash.MakeSeed()}
	for i, m := range r {
		*x.slot(m.Identity) = uint32(i) + 1
	}
	return x
}

func (x *Index) slot(id audit.Identity) *uint32 {
	for h := maphash.Comparable(x.seed, id); ; h++ {
		slot := &x.slots[h%uint64(len(x.slots))]
		if *slot == 0 || x.records[*slot-1].Identity == id {
			return slot
		}
	}
}

// Find reports whether a record is remembered, and its line then. A record that is remembered without its
// type, as by an older release, is any of its id and time.
func (x *Index) Find(id audit.Identity) (line uint64, found bool) {
	for _, id.Type = range [...]uint64{id.Type, audit.AnyType} {
		if slot := *x.slot(id); slot != 0 {
			return x.records[slot-1].Line, true
		}
	}
	return 0, false
}
