package verify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"cloud.google.com/go/storage"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/store"
)

// The storage client itself would wait for ever.
const (
	listTime = 10 * time.Minute
	slowest  = 256 << 10 // bytes a second of an object
)

// object is one under the feed prefix that can hold records of the range.
type object struct {
	store.Object
	index  int
	old    bool  // it can hold no records of the range, and is not read
	oldest int64 // effective_at of its oldest record, as of the newest
	newest int64
	gone   bool // deleted before it was read to its end
}

// list lists the objects, by name. Those that can hold records of the range are read: none is older than its
// records. The clocks of the API and of the bucket differ by less than a day.
func (c *check) list(ctx context.Context) (objects []*object, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	since := time.Unix(c.scope.asked.Gte-day, 0)
	for o, err := range c.store.Objects(ctx) {
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", c.store.FeedURL(c.store.FeedFolder()), store.ReadHint(err, c.store.Bucket))
		}
		isState := c.store.StateInFeed() && c.store.FeedFolder()+o.Name == c.store.StateKey
		if !isState {
			objects = append(objects, &object{Object: o, index: len(objects), old: o.Created.Before(since)})
		}
	}
	return objects, nil
}

// readPiece reads a piece from the API into the spill. A piece that the API does not serve is left; an error
// that other requests would meet, too, ends the whole.
func (c *check) readPiece(ctx context.Context, p *piece) error {
	out := c.spill.pages(ofAPI)
	reached := p.Lte + 1
	err := c.fetch(ctx, p.query, func(records []audit.Record) error {
		for _, r := range records {
			if err := out.add(entry{Identity: r.Identity(), Line: r.Hash(), Members: members(r.Line), From: p.index}); err != nil {
				return err
			}
		}
		if n := len(records); n > 0 && records[n-1].At < reached { // most pages come newest first
			c.progress.add(reached-records[n-1].At, 0)
			reached = records[n-1].At
		}
		return nil
	})
	c.progress.add(reached-p.Gte, 0)
	if failure, failed := errors.AsType[*audit.Failure](err); failed && failure.Kind >= audit.Unserved {
		p.failed, err = failure, nil
	}
	if err != nil {
		return err
	}
	return out.flush()
}

// fetch calls take with the pages of a range. A record may come more than once.
func (c *check) fetch(ctx context.Context, q query, take func([]audit.Record) error) error {
	r := audit.Request{Gte: q.Gte, Lte: q.Lte, Limit: c.o.PageSize, Tenant: q.Tenant, Filter: q.Filter}
	fail := func(kind audit.Kind, err error) error {
		return &audit.Failure{Kind: kind, Err: fmt.Errorf("reading %s from %s: %w", r.What(), q.Span, err)}
	}
	var buf bytes.Buffer
	cursors, restarted := map[string]bool{}, false
	for {
		page, err := c.api.Page(ctx, r, &buf, func(error, time.Duration) {})
		failure, failed := errors.AsType[*audit.Failure](err)
		switch {
		case failed && failure.Kind == audit.PageTooLarge && r.Limit > 1:
			r.Limit /= 2
			continue
		case failed && failure.Kind == audit.CursorRefused && !restarted:
			r.After, cursors, restarted = "", map[string]bool{}, true
			continue
		case failed:
			return fail(failure.Kind, err)
		case err != nil:
			return fail(audit.Other, err)
		case page.Organization != "" && c.scope.organization != "" && page.Organization != c.scope.organization:
			return fmt.Errorf("OPENAI_ADMIN_KEY belongs to organization %q, but the state to %q", audit.Shorten(page.Organization), audit.Shorten(c.scope.organization))
		}
		if err := take(page.Records); err != nil {
			return err
		}
		switch {
		case !page.More:
			return nil
		case cursors[page.Cursor]:
			return fail(audit.Unserved, errors.New("the API's cursor comes back to where it was"))
		}
		cursors[page.Cursor], r.After = true, page.Cursor
	}
}

// readObject reads an object into the spill.
func (c *check) readObject(ctx context.Context, o *object) error {
	if o.old {
		return nil
	}
	out := c.spill.pages(ofFeed)
	err := c.lines(ctx, o, func(row int, record audit.Record, err error) error {
		switch {
		case err != nil && o.Collected: // the feed reads objects of others, too
			c.report.damaged(o.place(row), err)
			return nil
		case err != nil:
			return nil
		}
		o.newest = max(o.newest, record.At)
		if o.oldest == 0 || record.At < o.oldest {
			o.oldest = record.At
		}
		if !c.scope.has(record.At) {
			return nil
		}
		return out.add(entry{Identity: record.Identity(), Line: record.Hash(), Members: members(record.Line), From: o.index, Row: row})
	})
	if errors.Is(err, storage.ErrObjectNotExist) { // the feed has just deleted it
		o.gone, err = true, nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", c.store.FeedURL(c.store.FeedFolder()+o.Name), store.ReadHint(err, c.store.Bucket))
	}
	return out.flush()
}

// lines calls take with each line of an object: a record, or why it is none.
func (c *check) lines(ctx context.Context, o *object, take func(row int, r audit.Record, err error) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.store.Step+time.Duration(o.Size/slowest)*time.Second)
	defer cancel()
	in, err := c.store.Open(ctx, o.Object)
	if err != nil {
		return err
	}
	defer in.Close()
	r := bufio.NewReaderSize(in, 64<<10)
	for row := 1; ; row++ {
		line, err := r.ReadBytes('\n')
		c.progress.add(0, int64(len(line)))
		if err != nil && err != io.EOF {
			return err
		}
		if len(bytes.TrimSpace(line)) > 0 {
			record, bad := audit.DecodeLine(line)
			if err := take(row, record, bad); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

func (o *object) place(row int) string { return fmt.Sprintf("%s:%d", path.Base(o.Name), row) }
