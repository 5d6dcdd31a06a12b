package world

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
)

// feed is what the SecOps feed remembers.
type feed struct {
	mu      sync.Mutex
	objects map[version]bool  // taken; false: not NDJSON
	records map[string]*taken // by id
	lines   int
	faulty  examples // objects that are not NDJSON
	altered examples
	unknown examples
}

type version struct {
	name       string
	generation int64
}

// taken is how often a record came, and in which object first and last.
type taken struct {
	times       int
	first, last string
}

// examples counts faults and keeps the first few.
type examples struct {
	n    int
	some []string
}

func (e *examples) add(format string, args ...any) {
	const most = 3
	e.n++
	if len(e.some) < most {
		e.some = append(e.some, fmt.Sprintf(format, args...))
	}
}

// Feed does what the SecOps feed does: it takes every object under the prefix
// that it has not taken in that generation, line by line, and deletes it if
// remove is set. It goes on after an object that is not NDJSON, which it
// neither takes whole nor deletes, and returns an error that names each.
func (w *World) Feed(remove bool) error {
	f := &w.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects == nil {
		f.objects, f.records = make(map[version]bool), make(map[string]*taken)
	}
	var errs []error
	for _, o := range w.Bucket.Objects(w.logBucket, w.prefix+"/") {
		good, seen := f.objects[version{o.Name, o.Generation}]
		if !seen {
			// What changed since the listing is taken as it is now.
			now, data, err := w.Bucket.Get(w.logBucket, o.Name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				if err = w.take(o.Name, data); err != nil {
					f.faulty.add("%v", err)
				}
				good = err == nil
				f.objects[version{now.Name, now.Generation}] = good
			}
			if err != nil {
				errs = append(errs, err)
			}
		}
		if remove && good {
			if err := w.Bucket.Delete(w.logBucket, o.Name); err != nil {
				errs = append(errs, fmt.Errorf("deleting %q: %w", o.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// take takes the lines of an object, those that are JSON also from an object
// that has others.
func (w *World) take(name string, data []byte) error {
	if !bytes.HasSuffix(data, []byte("\n")) {
		return fmt.Errorf("object %q is not NDJSON: it ends without a new line", name)
	}
	var err error
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimSuffix(line, []byte("\n"))
		if !json.Valid(line) {
			if err == nil {
				err = fmt.Errorf("object %q is not NDJSON: line %d is not JSON: %.100q", name, n, line)
			}
			continue
		}
		w.takeLine(name, n, line)
	}
	return err
}

// takeLine compares a line with the API's record at once, so that lines need
// not be kept.
func (w *World) takeLine(name string, n int, line []byte) {
	f := &w.feed
	f.lines++
	var head struct{ ID string }
	json.Unmarshal(line, &head) // what is no object has no id
	t := f.records[head.ID]
	if t == nil {
		t = &taken{first: name}
		f.records[head.ID] = t
	}
	t.times++
	t.last = name

	switch raw, ok := w.API.Record(head.ID); {
	case !ok:
		f.unknown.add("line %d of %q: %.100s", n, name, line)
	case !bytes.Equal(line, raw):
		f.altered.add("line %d of %q: got %.300s, want %.300s", n, name, line, raw)
	}
}

// Taken returns how often the feed has taken each record, by id.
func (w *World) Taken() map[string]int {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	times := make(map[string]int, len(w.feed.records))
	for id, t := range w.feed.records {
		times[id] = t.times
	}
	return times
}

// Report compares what the feed took with what the API has.
type Report struct {
	Collected  int // lines taken
	Missing    int // records that were never taken
	Repeated   int // lines beyond the first of a record
	Altered    int // lines that are not the bytes of their record
	Unexpected int // lines that are no record of the API
	Faulty     int // objects that are not NDJSON

	examples []string
}

// Err returns nil where each record was taken once and as it is.
func (r Report) Err() error {
	if r.Missing+r.Repeated+r.Altered+r.Unexpected+r.Faulty == 0 {
		return nil
	}
	return errors.New(r.String() + "\n\t" + strings.Join(r.examples, "\n\t"))
}

// String returns the counts on one line.
func (r Report) String() string {
	return fmt.Sprintf("%d collected, %d missing, %d repeated, %d altered, %d unexpected, %d faulty objects",
		r.Collected, r.Missing, r.Repeated, r.Altered, r.Unexpected, r.Faulty)
}

// Report compares what the feed has taken so far. It takes nothing itself.
func (w *World) Report() Report {
	f := &w.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	var missing, repeated examples
	w.API.Each(func(id string, at int64, _ bool) {
		switch t := f.records[id]; {
		case t == nil && at >= w.Since:
			missing.add("%s, effective_at %d", id, at)
		case t != nil && t.times > 1:
			repeated.add("%s, %d times, in %q and %q", id, t.times, t.first, t.last)
			repeated.n += t.times - 2
		}
	})
	r := Report{
		Collected:  f.lines,
		Missing:    missing.n,
		Repeated:   repeated.n,
		Altered:    f.altered.n,
		Unexpected: f.unknown.n,
		Faulty:     f.faulty.n,
	}
	for _, kind := range []struct {
		name string
		examples
	}{{"missing", missing}, {"repeated", repeated}, {"altered", f.altered}, {"unexpected", f.unknown}, {"faulty", f.faulty}} {
		for _, e := range kind.some {
			r.examples = append(r.examples, kind.name+": "+e)
		}
	}
	return r
}

// Check lets the feed take what is there, and returns an error that counts what
// is wrong and gives examples, or nil where every record was taken exactly once
// and unaltered.
func (w *World) Check() error {
	if err := w.Feed(false); err != nil {
		return errors.Join(err, w.Report().Err())
	}
	return w.Report().Err()
}
