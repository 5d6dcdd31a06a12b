package udm

import (
	"cmp"
	"slices"
	"strings"
)

// MaxFields is how many different paths a Fields lists. Real logs have some
// hundreds; input that uses ids as names must not fill the memory.
const MaxFields = 10000

// Fields counts the fields of records that the table leaves unmapped. The zero
// value is ready to use. It is not safe for concurrent use.
type Fields struct {
	records  int
	unmapped map[string]*tally
	mapped   map[string]bool
	more     bool
}

// tally counts the records that have a field, each once.
type tally struct{ records, last int }

// Field is a field with the number of records that have it.
type Field struct {
	Path    string `json:"field"`
	Records int    `json:"count"`
}

// Add counts the fields of a record. An error means that line is no JSON object;
// nothing is counted then.
func (f *Fields) Add(line []byte) error {
	if _, err := read(line, f.saw); err != nil {
		return err
	}
	f.records++
	return nil
}

func (f *Fields) saw(path []byte, mapped bool) {
	if f.mapped == nil {
		f.mapped, f.unmapped = map[string]bool{}, map[string]*tally{}
	}
	if mapped {
		f.mapped[string(path)] = true
		return
	}
	t := f.unmapped[string(path)]
	if t == nil {
		if len(f.unmapped) == MaxFields {
			f.more = true
			return
		}
		t = &tally{last: -1}
		f.unmapped[string(path)] = t
	}
	if t.last != f.records {
		t.last = f.records
		t.records++
	}
}

// Records returns how many records were added.
func (f *Fields) Records() int { return f.records }

// Unmapped returns the fields that are in no event, those of most records
// first, then by path. more says that there are others beyond MaxFields.
func (f *Fields) Unmapped() (list []Field, more bool) {
	list = make([]Field, 0, len(f.unmapped))
	for path, t := range f.unmapped {
		list = append(list, Field{path, t.records})
	}
	slices.SortFunc(list, func(a, b Field) int {
		return cmp.Or(cmp.Compare(b.Records, a.Records), strings.Compare(a.Path, b.Path))
	})
	return list, f.more
}

// Absent returns the table's fields, in its order, that no record had, or had
// with a value of use.
func (f *Fields) Absent() []string {
	list := []string{}
	for _, r := range table {
		if path := strings.Join(r.path, "."); !f.mapped[path] {
			list = append(list, path)
		}
	}
	return list
}
