package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/store"
)

// Add publishes what write writes, in one commit against the state of the snapshot; overtaken by a run, its
// error is store.ErrOvertaken, and nothing is published. It returns the object.
type Add func(ctx context.Context, snapshot *store.Snapshot, write func(context.Context, *store.Staged) (int, error)) (object string, err error)

// Repair does what Check does, and has what is missing added. The report comes with an error, too, if there is one.
func (v *Verifier) Repair(ctx context.Context, add Add) (*Report, error) {
	c, err := v.check(ctx)
	if err != nil {
		return nil, err
	}
	if c.report.Missing.Count+c.report.NotCheckable.Count > 0 {
		err = c.repair(ctx, add)
		c.report.judge(v.o.AllowDeleted)
	}
	return c.report, err
}

func (c *check) repair(ctx context.Context, add Add) error {
	if c.report.NotCheckable.Count > 0 {
		return errors.New("nothing is repaired: the feed has deleted objects of the range, and what they held would be written again; choose a range that can be checked")
	}
	repaired := &Repaired{}
	for range 5 {
		if note := c.snapshot.Note; note != "" { // a run must follow the edit first
			return fmt.Errorf("nothing is repaired: %s; check again after the next run", note)
		}
		object, err := add(ctx, c.snapshot, func(ctx context.Context, staged *store.Staged) (int, error) {
			n, err := c.write(ctx, staged)
			repaired.Records = n
			return n, err
		})
		if err == nil {
			repaired.Object, repaired.Meanwhile = object, c.report.Missing.Count-len(c.missing)
			c.report.Repaired = repaired
			return nil
		}
		if !errors.Is(err, store.ErrOvertaken) {
			return fmt.Errorf("the repair may not be done, check again: %w", err)
		}
		if err := c.checkAgain(ctx); err != nil {
			return fmt.Errorf("nothing is repaired: %w", err)
		}
	}
	return errors.New("nothing is repaired: runs got ahead of this five times, try again")
}

// write writes the missing records, each once. It asks the API for the part of each day and stream that has them.
func (c *check) write(ctx context.Context, staged *store.Staged) (n int, err error) {
	left := map[audit.Identity]bool{}
	parts := map[query]query{}
	for id, q := range c.missing {
		left[id] = true
		part, known := parts[q]
		if !known {
			part = q
			part.Gte, part.Lte = id.At, id.At
		}
		part.Gte, part.Lte = min(part.Gte, id.At), max(part.Lte, id.At)
		parts[q] = part
	}
	for _, part := range parts {
		err := c.fetch(ctx, part, func(records []audit.Record) error {
			for _, r := range records {
				if !left[r.Identity()] {
					continue
				}
				delete(left, r.Identity())
				n++
				if _, err := staged.Write(r.Line); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// checkAgain follows the run that has got ahead: what it, or another repair, has collected of the missing
// records, or will collect, is missing no longer.
func (c *check) checkAgain(ctx context.Context) error {
	snapshot, err := c.load(ctx)
	if err != nil {
		return err
	}
	o := c.o
	o.From, o.To = time.Unix(c.scope.asked.Gte, 0), time.Unix(c.scope.asked.Lte, 0)
	scope, err := layOut(&snapshot.State, o)
	if err != nil {
		return err
	}
	for id := range c.missing {
		if !scope.has(id.At) {
			delete(c.missing, id)
		}
	}
	if err := c.readNew(ctx); err != nil {
		return err
	}
	complete := completeFrom(c.objects, &snapshot.State)
	for id := range c.missing {
		if id.At < complete {
			return errors.New("the feed has deleted objects meanwhile")
		}
	}
	c.snapshot = snapshot
	return nil
}

// readNew reads the objects that have come since, or have changed. Those that were read need not be there any more.
func (c *check) readNew(ctx context.Context) error {
	now, err := c.list(ctx)
	if err != nil {
		return err
	}
	for _, o := range now {
		at, known := slices.BinarySearchFunc(c.objects, o, func(a, b *object) int { return strings.Compare(a.Name, b.Name) })
		switch {
		case !known:
			c.objects = slices.Insert(c.objects, at, o)
		case c.objects[at].Same(o.Object):
			continue
		default:
			c.objects[at] = o
		}
		if o.old {
			continue
		}
		err := c.lines(ctx, o, func(_ int, r audit.Record, bad error) error {
			if bad == nil {
				delete(c.missing, r.Identity())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
