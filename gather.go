package auditlog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// plan lays out the windows of the streams, without those set aside.
func (r *run) plan(state snapshot, aside map[place]bool) []*reading {
	var before *Stream
	if state.generation != 0 {
		before = &state.Stream
	}
	streams := []*reading{plan(before, r.started, r.cfg.Overlap, r.cfg.Lookback*3600, r.cfg.filter)}
	if r.cfg.TenantEvents {
		tenant := plan(state.Tenant, r.started, r.cfg.Overlap, r.cfg.Lookback*3600, r.cfg.filter)
		tenant.tenant = true
		streams = append(streams, tenant)
	}
	for _, s := range streams {
		s.aside = aside[place{s.tenant, wholeStream}]
		for _, w := range s.windows {
			w.place.tenant = s.tenant
			w.aside = s.aside || aside[w.place]
		}
	}
	return streams
}

// gather reads the streams into a staged object, and returns what stopped it.
//
// Where the pages of a window contradict each other, what has been written may
// hold records twice: that window is set aside, and all others are read anew.
func (r *run) gather(whole, reading context.Context, state snapshot) (streams []*reading, object *stagedObject, stopped error) {
	aside := map[place]bool{}
	var why []error
	for {
		streams, object = r.plan(state, aside), r.stage(whole, r.started)
		stopped = r.read(reading, streams, object)
		var bad *inconsistent
		if !errors.As(stopped, &bad) {
			if len(why) > 0 {
				stopped = joined(append(why, failure(stopped)))
			}
			return streams, object, stopped
		}
		object.abort()
		why = append(why, bad)
		if aside[bad.place] { // reading on would come back to here
			return nil, object, joined(why)
		}
		aside[bad.place] = true
		r.sum = Summary{Watermark: r.sum.Watermark, OpenWindows: r.sum.OpenWindows, Pages: r.sum.Pages, Retries: r.sum.Retries, RateLimitWait: r.sum.RateLimitWait}
		r.log.Warn(bad.Error() + ": this window is left for another run, and the others are read again")
	}
}

// turn is the window to ask for a page of next, of the stream that has been asked
// the least; nil where there is none. spare leaves out streams that have requests
// under way.
func (r *run) turn(streams []*reading, spare bool) (*reading, *part) {
	var next *reading
	for _, s := range streams {
		switch {
		case spare && s.busy > 0:
		case s.stopped != nil || len(s.idle()) == 0:
		case r.room(s) <= 0:
			if s.busy == 0 {
				s.halt(errRecordCap)
			}
		case next == nil || s.requested < next.requested:
			next = s
		}
	}
	if next == nil {
		return nil, nil
	}
	return next, next.idle()[0]
}

// room is how many records more may be asked for. Each stream has a MAX_RECORDS of
// its own, so that none uses up another's.
func (r *run) room(s *reading) int { return r.cfg.MaxRecords - s.collected - s.asked }

// halt notes why no more is read. What is wrong counts more than a limit, and
// pages that contradict each other more than anything.
func (s *reading) halt(why error) {
	if failure(s.stopped) == nil && why != nil || errors.As(why, new(*inconsistent)) {
		s.stopped = why
	}
	if failure(s.stopped) != nil {
		s.stop() // its other requests may wait for minutes to try again
	}
}

// ended is what has kept the streams from being read to their end: what is wrong,
// else a limit, else nil.
func ended(streams []*reading) error {
	var failures []error
	var limit error
	for _, s := range streams {
		switch err := s.stopped; {
		case err == errNoTenant:
		case failure(err) == nil:
			limit = cmp.Or(limit, err)
		case s.tenant && (failure(streams[0].stopped) == nil || err.Error() != streams[0].stopped.Error()):
			failures = append(failures, fmt.Errorf("tenant events: %w", err))
		case !s.tenant:
			failures = append(failures, err)
		}
	}
	if len(failures) == 0 {
		return limit
	}
	return joined(failures)
}

// what names the stream's records.
func (s *reading) what() string {
	if s.tenant {
		return "tenant-scoped audit logs"
	}
	return "audit logs"
}

// inconsistent is what pages of a window show that contradict each other, or those
// of another stream: what has been read may hold records twice.
type inconsistent struct {
	place
	text string
}

func (e *inconsistent) Error() string { return e.text }

var errTenantOnly = &inconsistent{place{true, wholeStream}, "audit log API brings the same records with tenant_only and without: does a proxy on the way drop it?"}

// compareTimeout is how long tenant-scoped records wait for others to be compared
// with: those must not hold them up.
const compareTimeout = 45 * time.Second

// page asks for a page, and compares it with what comes without tenant_only, where
// that comes. Once they have been seen to be apart, what the streams know of each
// other tells.
func (r *run) page(ctx context.Context, compare bool, q query, buf *bytes.Buffer, tell retried) (page, error) {
	p, err := r.api.page(ctx, q, buf, tell)
	if err != nil || !compare || len(p.records) == 0 {
		return p, err
	}
	q.tenant = false
	soon, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	others, err := r.api.page(soon, q, new(bytes.Buffer), tell)
	switch {
	case ctx.Err() != nil:
		return page{}, ctx.Err()
	case err != nil:
		return p, nil
	case slices.ContainsFunc(others.records, func(o record) bool { return o.id == p.records[0].id }):
		return page{}, errTenantOnly
	}
	p.apart = true
	return p, nil
}

// unread reports whether no page of the stream has ever been taken.
func (s *reading) unread() bool { return !s.answered && (s.first || s.before.Unread) }

const noTenantRemedy = "set TENANT_EVENTS to false, or see to the tenant and the key's role in it"

// noTenant reports whether err is how the API answers for an organization
// without a tenant.
func noTenant(err error) bool {
	var e *apiError
	return errors.As(err, &e) && e.api && (e.status == http.StatusBadRequest || e.status == http.StatusForbidden)
}
