package state

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
)

func remembered(id string, at int64, typ, line uint64) Remembered {
	return Remembered{audit.Identity{ID: id, At: at, Type: typ}, line}
}

// someRecent has records that share an id, and such as an older release has left.
var someRecent = Recent{
	remembered("a", 5, 1, 7), remembered("a", 5, 2, 8), remembered("a", 6, 1, 9),
	remembered("a", 7, audit.AnyType, 0),
	remembered("b", 4, audit.AnyType, 0),
	remembered("c", 3, 1, 1<<63+1),
}

// TestRecent: what is remembered is what is stored, also of records that share
// an id, and an older release reads each id once, with its latest time.
func TestRecent(t *testing.T) {
	data := encoded(t, State{Stream: Stream{Recent: someRecent}})
	want := `
  "recent_ids": {
    "a": 7,
    "b": 4,
    "c": 3
  },
  "recent": {
    "a": [[5,"0000000000000001","0000000000000007"],[5,"0000000000000002","0000000000000008"],[6,"0000000000000001","0000000000000009"],[7,"0000000000000000","0000000000000000"]],
    "c": [[3,"0000000000000001","8000000000000001"]]
  }
}
`
	if !strings.HasSuffix(data, want) {
		t.Errorf("stored as %s", data)
	}
	s, _, err := Decode(strings.NewReader(data), testNow)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(someRecent, s.Recent); diff != "" {
		t.Error(diff)
	}
	got := s.Recent.Only(func(r Remembered) bool { return r.At != 5 && r.At != 4 })
	if diff := cmp.Diff(Recent{someRecent[2], someRecent[3], someRecent[5]}, got); diff != "" || len(s.Recent) != 6 {
		t.Errorf("%d: %s", len(s.Recent), diff)
	}
}

func TestFind(t *testing.T) {
	index := NewIndex(someRecent)
	for _, tt := range []struct {
		id   audit.Identity
		line uint64
		want bool
	}{
		{audit.Identity{ID: "a", At: 5, Type: 1}, 7, true},
		{audit.Identity{ID: "a", At: 5, Type: 2}, 8, true},
		{audit.Identity{ID: "a", At: 5, Type: 3}, 0, false},
		{audit.Identity{ID: "a", At: 6, Type: 2}, 0, false},
		{audit.Identity{ID: "a", At: 7, Type: 2}, 0, true}, // of any type
		{audit.Identity{ID: "b", At: 4, Type: 9}, 0, true},
		{audit.Identity{ID: "b", At: 5, Type: 9}, 0, false},
		{audit.Identity{ID: "d", At: 3, Type: 1}, 0, false},
		{audit.Identity{ID: "", At: 3, Type: 1}, 0, false},
	} {
		if line, found := index.Find(tt.id); line != tt.line || found != tt.want {
			t.Errorf("%+v: %d, %v", tt.id, line, found)
		}
	}
	empty := NewIndex(nil)
	if _, found := empty.Find(audit.Identity{ID: "a"}); found {
		t.Error("an empty set has a record")
	}

	var many Recent
	for i := range int64(5000) {
		for _, typ := range []uint64{1, 2} {
			many = append(many, remembered(fmt.Sprintf("id-%04d", i/3), i%3, typ, uint64(10*i)+typ))
		}
	}
	index = NewIndex(many)
	for _, m := range many {
		if line, found := index.Find(m.Identity); line != m.Line || !found {
			t.Fatalf("%+v: %d, %v", m, line, found)
		}
		other := m.Identity
		other.Type = 3
		if _, found := index.Find(other); found {
			t.Fatalf("%+v is found", other)
		}
		other.At = 3
		if _, found := index.Find(other); found {
			t.Fatalf("%+v is found", other)
		}
	}
}

// TestFindAlike: records that share an id, and a time, or whose times are alike, are found one by one. A
// hash of less than the identity would take minutes.
func TestFindAlike(t *testing.T) {
	for name, record := range map[string]func(i int64) Remembered{
		"one second": func(i int64) Remembered { return remembered("a", 1, uint64(i)+1, 1) },
		"far apart":  func(i int64) Remembered { return remembered("a", i<<20, 1, 1) },
		"close by":   func(i int64) Remembered { return remembered(strconv.FormatInt(i>>13, 10), i&(1<<13-1), 1, 1) },
	} {
		var list []Remembered
		for i := range int64(200_000) {
			list = append(list, record(i))
		}
		index := NewIndex(Recent(nil).With(list))
		for _, m := range index.records {
			other := m.Identity
			other.Type += 200_000
			if _, found := index.Find(m.Identity); !found {
				t.Fatalf("%s: %+v is not found", name, m)
			}
			if _, found := index.Find(other); found {
				t.Fatalf("%s: %+v is found", name, other)
			}
		}
	}
}

// TestWith: a set with more records is the sorted union, whatever their order; of
// one in both, or twice among these, the last counts.
func TestWith(t *testing.T) {
	a, b, c, d := remembered("a", 1, 1, 1), remembered("b", 1, 1, 1), remembered("b", 2, 1, 1), remembered("c", 1, 1, 1)
	changed := func(m Remembered) Remembered { m.Line = 2; return m }
	for _, tt := range []struct{ r, more, want []Remembered }{
		{nil, nil, nil},
		{[]Remembered{a, c}, nil, []Remembered{a, c}},
		{nil, []Remembered{d, b, a}, []Remembered{a, b, d}},
		{[]Remembered{a, c}, []Remembered{d, b}, []Remembered{a, b, c, d}},
		{[]Remembered{b, c}, []Remembered{changed(c), a}, []Remembered{a, b, changed(c)}},
		{[]Remembered{a}, []Remembered{b, a, changed(b), changed(a)}, []Remembered{changed(a), changed(b)}},
	} {
		r, more := slices.Clone(tt.r), slices.Clone(tt.more)
		if diff := cmp.Diff(Recent(tt.want), Recent(r).With(more)); diff != "" {
			t.Errorf("%v with %v (-want +got):\n%s", tt.r, tt.more, diff)
		}
		if !slices.Equal(r, tt.r) {
			t.Errorf("%v with %v changes it", tt.r, tt.more)
		}
	}
}

// TestDecodeRecent: whatever order an edit or a tool has left, and whatever is left out.
func TestDecodeRecent(t *testing.T) {
	typed := `"recent": {"c": [[3, "0000000000000001", "8000000000000001"]], "a": [[6,"1","9"],[5,"2","8"],
		[5,"0000000000000001","0000000000000007"],[7,"0","0"]]}`
	for name, members := range map[string]string{
		"other order":       `"recent_ids": {"c": 3, "b": 4, "a": 7}, ` + typed,
		"recent first":      typed + `, "recent_ids": {"a": 7, "b": 4, "c": 3}`,
		"no ids but these":  typed + `, "recent_ids": {"b": 4}`,
		"in pieces":         `"recent_ids": {"b": 4}, ` + typed + `, "recent": null, "recent_ids": null, "RECENT_IDS": {"a": 9}`,
		"an id without any": `"recent_ids": {"b": 4, "a": 7}, ` + strings.Replace(typed, `{`, `{"b": [ ], `, 1),
		"an id with null":   `"recent_ids": {"b": 4, "a": 7}, ` + strings.Replace(typed, `{`, `{"b": null, `, 1),
		"escaped":           `"recent\u005fids": {"\u0062": 4}, ` + strings.Replace(typed, `"a"`, `"\u0061"`, 1),
	} {
		s, _, err := Decode(strings.NewReader(`{"last_effective_at": 9, "high": 9, `+members+`}`), testNow)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(someRecent, s.Recent); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestDecodeRecentRefuses(t *testing.T) {
	for _, value := range []string{`1`, `[]`, `""`, `{"a": 1}`, `{"a": [1]}`, `{"a": [null]}`, `{"a": [[]]}`, `{"a": [[1]]}`, `{"a": [[1,"1"]]}`,
		`{"a": [[1,"g","1"]]}`, `{"a": [[1,"1","x"]]}`, `{"a": [["1","1","1"]]}`, `{"a": [[1.5,"1","1"]]}`, `{"a": [[1,2,3]]}`, `{"a": [{}]}`, `{"a": {}}`} {
		for _, tenant := range []bool{false, true} {
			data := fmt.Sprintf(`{"last_effective_at": 9, "high": 9, "recent": %s}`, value)
			if tenant {
				data = `{"last_effective_at": 9, "high": 9, "tenant": ` + data + `}`
			}
			if _, _, err := Decode(strings.NewReader(data), testNow); err == nil || !strings.Contains(err.Error(), `"recent"`) {
				t.Errorf("%s: %v", data, err)
			}
		}
	}
	for _, value := range []string{`1`, `[]`, `{"a": "1"}`, `{"a": 1.5}`, `{"a": null}`, `{"a": []}`} {
		if _, _, err := Decode(strings.NewReader(`{"last_effective_at": 9, "high": 9, "recent_ids": `+value+`}`), testNow); err == nil || !strings.Contains(err.Error(), `"recent_ids"`) {
			t.Errorf("%s: %v", value, err)
		}
	}
}
