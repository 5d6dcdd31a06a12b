package auditlog

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/state"
	"example.com/auditlog/internal/store"
)

// message is what a Pub/Sub message asks for. With neither check nor backfill it asks for a run.
type message struct {
	check    bool
	backfill *state.Backfill
	doubt    string // why a run may not be what the sender wants
}

// readMessage reads a message. One that asks for nothing, whatever it holds, asks for a run: people
// press "Force run", or publish any text. A wrong request for a check or a backfill is refused: its
// sender does not want a run. An age counts from when the message was published, so that every
// delivery means the same range.
func readMessage(data []byte, published time.Time) (message, error) {
	var keys map[string]json.RawMessage
	if json.Unmarshal(data, &keys) != nil {
		// Some shells leave quotes around a message, some editors a byte order mark.
		if text := string(data); strings.HasPrefix(strings.TrimLeft(text, "\"'`\ufeff \t\r\n"), "{") {
			return message{doubt: "it begins like a JSON object, and is none: " + audit.Shorten(text)}, nil
		}
		return message{}, nil
	}
	check, checks := keys["check"]
	backfill, backfills := keys["backfill"]
	names := slices.Sorted(maps.Keys(keys))
	switch {
	case !checks && !backfills:
		return message{doubt: strange(names, "backfill", "check")}, nil
	case len(keys) > 1:
		return message{}, fmt.Errorf(`message with "check" or "backfill" must have no other key: it has %s`, quoted(names))
	case checks:
		if string(check) != "true" {
			return message{}, fmt.Errorf(`message must be {"check": true}, or have no "check": it is %s`, audit.Shorten(string(check)))
		}
		return message{check: true}, nil
	}
	want, err := readBackfill(backfill, published)
	if err != nil {
		return message{}, fmt.Errorf(`"backfill": %w`, err)
	}
	return message{backfill: &want}, nil
}

// readBackfill reads the value of "backfill". It accepts no "again": a message may be delivered twice.
func readBackfill(value []byte, published time.Time) (state.Backfill, error) {
	const form = `it must be {"from": "...", "to": "..."}`
	var fields map[string]json.RawMessage
	if json.Unmarshal(value, &fields) != nil || fields == nil {
		return state.Backfill{}, fmt.Errorf("%s, and is %s", form, audit.Shorten(string(value)))
	}
	var from, to string
	var others []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		end := map[string]*string{"from": &from, "to": &to}[strings.ToLower(name)]
		switch {
		case end == nil:
			others = append(others, name)
		case json.Unmarshal(fields[name], end) != nil:
			return state.Backfill{}, fmt.Errorf("%s: %q is %s", form, name, audit.Shorten(string(fields[name])))
		}
	}
	if len(others) > 0 {
		return state.Backfill{}, errors.New(strange(others, "from", "to"))
	}
	return ParseBackfill(from, to, published)
}

// strange says which names are not known; "" where there are none.
func strange(names []string, known ...string) string {
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("it has %s; known are %s", quoted(names, known...), quoted(known))
}

// quoted lists names, each with the known one that it may be meant for.
func quoted(names []string, known ...string) string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = strconv.Quote(name)
		if nearest := audit.Nearest(name, known); nearest != "" {
			list[i] += fmt.Sprintf(" (did you mean %q?)", nearest)
		}
	}
	return audit.Shorten(strings.Join(list, ", "))
}

// ParseBackfill reads the ends of a range: days (UTC; an end includes its day), RFC 3339 times, or
// ages. No end means up to what has been collected.
func ParseBackfill(from, to string, now time.Time) (state.Backfill, error) {
	var r state.Backfill
	var err error
	if r.From, err = ParseTime(from, now, false); err != nil {
		return r, fmt.Errorf("from: %w", err)
	}
	if to != "" {
		if r.To, err = ParseTime(to, now, true); err != nil {
			return r, fmt.Errorf("to: %w", err)
		}
	}
	return r, nil
}

// ParseTime reads one end of a range; the end of a day is its last second.
func ParseTime(s string, now time.Time, end bool) (time.Time, error) {
	const day = 24 * time.Hour
	switch s {
	case "now":
		return now, nil
	case "today":
		s = now.UTC().Format(time.DateOnly)
	case "yesterday":
		s = now.UTC().Add(-day).Format(time.DateOnly)
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		if end {
			t = t.Add(day - time.Second)
		}
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	for unit, length := range map[string]time.Duration{"w": 7 * day, "d": day, "h": time.Hour, "m": time.Minute} {
		text, ok := strings.CutSuffix(s, unit)
		if n, err := strconv.ParseUint(text, 10, 32); ok && err == nil && 0 < n && n <= uint64(maxAge/length) {
			return now.Add(-time.Duration(n) * length), nil
		}
	}
	return time.Time{}, fmt.Errorf("%.60q is neither a day (2026-11-24, yesterday, today), a time (2026-11-24T01:00:00Z, now) nor an age (2w, 30d, 12h, 90m)", s)
}

const maxAge = 100 * 365 * 24 * time.Hour

// Backfill adds what is missing of a range to the backlog, for the next runs to collect with the current
// filters, and logs what it comes to. With TENANT_EVENTS it does so for tenant-scoped records, too. It
// changes the state as a run does, on the condition that nobody else has, so that it is safe while runs are
// in progress.
//
// What is collected already is added only if it is asked for again.
func (c *Collector) Backfill(ctx context.Context, log *slog.Logger, want state.Backfill) (state.Backfilled, error) {
	done, err := c.backfill(ctx, log, want)
	switch {
	case errors.As(err, new(*state.Refused)):
		log.Error("Backfill refused: " + err.Error())
		return done, err
	case err != nil:
		log.Error("Backfill failed: " + err.Error())
		return done, err
	case want.DryRun: // whoever asks prints it
	case want.Cancel:
		log.Info("Backfill " + done.String())
	case done.Idle():
		log.Info(fmt.Sprintf("Backfill: nothing to do: %s. To write the records once more: %s", done, done.Asked.Again()))
	default:
		log.Info(fmt.Sprintf("Backfill of %s", done))
	}
	for _, part := range done.Unsure {
		log.Warn(fmt.Sprintf("Backfill: whether all records from %s are collected is unknown: %s. To write them, whether they have been before or not: %s", part, done.Why, part.Again()))
	}
	return done, err
}

func (c *Collector) backfill(ctx context.Context, log *slog.Logger, want state.Backfill) (done state.Backfilled, err error) {
	for range 5 {
		snapshot, err := c.loadState(ctx)
		if err != nil {
			return done, err
		}
		if snapshot.First() {
			return done, &state.Refused{Reason: errors.New("there is no state yet: let a first run begin it; LOOKBACK_HOURS says how far back that reaches")}
		}
		if snapshot.Note != "" { // what is committed below has it in it
			log.Warn(snapshot.Note)
		}
		next := snapshot.State
		if c.cfg.TenantEvents && next.Tenant != nil && next.Tenant.Untouched {
			log.Warn("Backfill of tenant-scoped events: none, as no run has been able to read them yet")
		}
		done, err := next.AddBackfill(want, c.cfg.Filter, c.cfg.TenantEvents)
		if err != nil || len(done.Parts) == 0 || want.DryRun {
			return done, err
		}
		next.LastBackfill = strings.ToLower(rand.Text())
		if _, err = c.store.Commit(ctx, snapshot, next); !errors.Is(err, store.ErrOvertaken) {
			return done, err
		}
	}
	return done, errors.New("runs got ahead of this five times: try again")
}

// backfillAsked does the backfill that a message asks for. It returns only errors that may be over
// when the message is delivered again.
func (c *Collector) backfillAsked(ctx context.Context, log *slog.Logger, want state.Backfill) error {
	_, err := c.Backfill(ctx, log, want)
	if errors.As(err, new(*state.Refused)) {
		return nil
	}
	return err
}

// Add publishes records beside those of runs, as one object, through the steps of a run. write writes them, and
// returns how many. Add commits against the state that was loaded as snapshot: where a run has replaced it, the
// error is store.ErrOvertaken, and nothing is published.
func (c *Collector) Add(ctx context.Context, log *slog.Logger, snapshot *store.Snapshot, write func(context.Context, *store.Staged) (int, error)) (sum Summary, err error) {
	r := c.newRun(log)
	whole, reading, cancel := c.deadlines(ctx, r.started)
	defer cancel()
	if err := r.recover(whole, snapshot); err != nil {
		return sum, err
	}
	r.number = snapshot.NextNumber()
	staged := r.stage(whole)
	defer staged.Abort()
	if r.sum.Records, err = write(reading, staged); err != nil || staged.Empty() {
		return sum, err
	}
	if err := staged.Close(whole); err != nil {
		return sum, err
	}
	next := snapshot.State
	r.nameStaged(&next, staged, snapshot)
	if err := r.commit(whole, snapshot, next); err != nil {
		if errors.Is(err, store.ErrOvertaken) {
			r.discard(whole, staged)
		}
		return sum, err
	}
	err = r.publish(whole, next)
	return r.sum, err
}
