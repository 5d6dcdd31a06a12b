package state

import (
	gocmp "cmp"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
)

func remembered(id string, at int64, typ, line uint64) Remembered {
	return Remembered{audit.Identity{ID: id, At: at, Type: typ}, line}
}

func sorted(s *Stream) []Remembered {
	return slices.SortedFunc(s.Remembered(), func(a, b Remembered) int {
		return gocmp.Or(strings.Compare(a.ID, b.ID), gocmp.Compare(a.At, b.At), gocmp.Compare(a.Type, b.Type))
	})
}

// TestRemembered: what is remembered is what is stored, also of records that share
// an id, and an older release reads each id once.
func TestRemembered(t *testing.T) {
	want := []Remembered{
		remembered("a", 5, 1, 7), remembered("a", 5, 2, 8), remembered("a", 6, 1, 9),
		remembered("a", 7, audit.AnyType, 0), // as an older release left it
		remembered("b", 4, audit.AnyType, 0),
		remembered("c", 3, 1, 1<<63+1),
	}
	var s Stream
	s.Remember(slices.Values(want))
	if diff := cmp.Diff(map[string]int64{"a": 7, "b": 4, "c": 3}, s.RecentIDs); diff != "" {
		t.Error(diff)
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), `"c":[[3,"0000000000000001","8000000000000001"]]`) {
		t.Errorf("stored as %s", data)
	}
	var stored Stream
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, sorted(&stored)); diff != "" {
		t.Error(diff)
	}
	for range stored.Remembered() {
		break // whoever has seen enough may stop
	}

	stored.forget(func(at int64) bool { return at == 5 || at == 4 })
	if diff := cmp.Diff([]Remembered{want[2], want[3], want[5]}, sorted(&stored)); diff != "" || len(stored.RecentIDs) != 2 {
		t.Errorf("%v: %s", stored.RecentIDs, diff)
	}
	stored.Remember(slices.Values([]Remembered{}))
	if stored.Recent != nil || stored.RecentIDs == nil {
		t.Errorf("%+v", stored)
	}
}

// TestRememberedStops: whoever has seen enough gets no more, of either kind.
func TestRememberedStops(t *testing.T) {
	for _, typ := range []uint64{audit.AnyType, 1} {
		var s Stream
		s.Remember(slices.Values([]Remembered{remembered("a", 5, typ, 7), remembered("b", 4, typ, 7), remembered("c", 3, typ, 7)}))
		n := 0
		for range s.Remembered() {
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			t.Errorf("type %d: %d of 2", typ, n)
		}
	}
}

// TestRememberedLatest: an older release reads of records that share an id the latest,
// whatever their order.
func TestRememberedLatest(t *testing.T) {
	var s Stream
	s.Remember(slices.Values([]Remembered{remembered("a", 6, 1, 9), remembered("a", 5, 1, 7)}))
	if diff := cmp.Diff(map[string]int64{"a": 6}, s.RecentIDs); diff != "" {
		t.Error(diff)
	}
}

func TestVersionRefused(t *testing.T) {
	for _, data := range []string{`1`, `[]`, `[1]`, `[1,"g","1"]`, `[1,"1","x"]`, `["1","1","1"]`, `[1.5,"1","1"]`, `[1,2,3]`, `{}`} {
		if err := json.Unmarshal([]byte(data), new(Version)); err == nil {
			t.Errorf("%s is taken", data)
		}
	}
}
