package verify

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/names"
	"example.com/auditlog/internal/state"
)

// key is an identity in few bytes.
type key struct {
	id   uint64
	at   int64
	kind uint64
}

func keyOf(id audit.Identity) key { return key{xxhash.Sum64String(id.ID), id.At, id.Type} }

// known is what is known of a record of the day that is compared.
type known struct {
	line    uint64 // the API's
	members []uint32
	ofAPI   bool
	tenant  bool
	object  *object // where its first line is, nil for none
	row     int
}

var errTenantOnly = errors.New("the API brings the same records with tenant_only and without: does a proxy on the way drop it?")

// compare compares both sides, a day after the other. A day that the API has not served is left.
func (c *check) compare() error {
	failed := map[int64]error{} // by day
	for _, p := range c.pieces {
		failed[p.Gte/day] = cmp.Or(failed[p.Gte/day], p.failed)
	}
	for _, d := range slices.Sorted(maps.Keys(failed)) {
		if err := failed[d]; err != nil {
			c.report.leave(Left{intersect(state.Span{Gte: d * day, Lte: d*day + day - 1}, c.scope.asked), err.Error()})
			continue
		}
		if err := c.compareDay(d); err != nil {
			return err
		}
	}
	for _, o := range c.objects {
		if !o.gone && !o.old {
			c.report.Objects++
		}
	}
	return nil
}

func (c *check) compareDay(d int64) error {
	records := map[key]*known{}
	for e, err := range c.spill.entries(ofAPI, d) {
		if err != nil {
			return err
		}
		tenant := c.pieces[e.From].Tenant
		switch k := records[keyOf(e.Identity)]; {
		case k == nil:
			records[keyOf(e.Identity)] = &known{line: e.Line, members: e.Members, ofAPI: true, tenant: tenant}
			c.report.Records++
		case k.tenant != tenant:
			return errTenantOnly
		}
	}
	for e, err := range c.spill.entries(ofFeed, d) {
		if err != nil {
			return err
		}
		c.compareLine(records, e)
	}
	for e, err := range c.spill.entries(ofAPI, d) {
		if err != nil {
			return err
		}
		if k := records[keyOf(e.Identity)]; k.object == nil {
			k.object = notFound // a record may come twice
			c.notFound(e)
		}
	}
	return nil
}

// notFound stands for no object.
var notFound = &object{}

func (c *check) compareLine(records map[key]*known, e entry) {
	c.report.Lines++
	o := c.objects[e.From]
	k := records[keyOf(e.Identity)]
	switch {
	case k == nil:
		records[keyOf(e.Identity)] = &known{object: o, row: e.Row}
		c.report.Foreign.add(e.Identity, o.place(e.Row))
	case k.object != nil:
		c.report.Repeated.add(e.Identity, k.object.place(k.row), o.place(e.Row))
	default:
		k.object, k.row = o, e.Row
		switch {
		case k.line == e.Line:
		case within(e.Members, k.members):
			c.report.Enriched.add(e.Identity, o.place(e.Row))
		default:
			c.report.Altered.add(e.Identity, o.place(e.Row))
		}
	}
}

func (c *check) notFound(e entry) {
	if e.At < c.complete {
		c.report.NotCheckable.add(e.Identity)
		return
	}
	c.report.Missing.add(e.Identity)
	c.missing[e.Identity] = c.pieces[e.From].query
	c.report.Late = max(c.report.Late, c.lateness(e.At))
}

// lateness returns how late a missing record must have appeared at least, in seconds, if it was not taken out of
// an object: after the last run that has read its time, of those that have left an object.
func (c *check) lateness(at int64) (late int64) {
	high := int64(0)
	for _, o := range c.objects {
		ran, err := time.Parse(names.FinalLayout, o.Name)
		if err != nil || o.newest == 0 {
			continue
		}
		if high == 0 {
			high = o.oldest + c.o.Overlap // that of the run before is not known
		}
		if high-c.o.Overlap <= at {
			late = max(late, ran.Unix()-at)
		}
		high = max(high, o.newest)
	}
	return late
}
