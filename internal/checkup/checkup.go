// Package checkup checks what runs need: settings, the API and its key, the clock, the buckets and
// their roles, the state, the feed's folder. Each fault comes with its remedy.
//
// It promises to change neither the state nor anything that the feed sees. It knows nothing about
// how a run reads.
package checkup

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/storage"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/store"
)

// Result is the outcome of a check.
type Result string

const (
	ResultOK      Result = "ok"
	ResultWarning Result = "warning" // runs go on, but somebody should look
	ResultFailure Result = "failure" // runs fail, or would
	ResultSkipped Result = "skipped" // not looked at; no fault

	ResultInterrupted Result = "interrupted" // not looked at, since the context ended
)

// Finding is what one check has found.
type Finding struct {
	Check  string `json:"check"`
	Result Result `json:"result"`
	Detail string `json:"detail"`           // one line
	Remedy string `json:"remedy,omitempty"` // what to do about a warning or a failure
}

// Check checks settings, key, buckets, roles and state, and yields each finding at once. It writes a
// probe object beside the staged ones, and removes it again, even if nobody wants more findings. A failed
// check prevents another only if it makes that one meaningless.
func Check(ctx context.Context, cfg config.Config, api *openai.Client, st *store.Store) iter.Seq[Finding] {
	return func(yield func(Finding) bool) {
		k := &checkup{cfg: cfg, api: api, store: st, down: map[string]string{}}
		more := true
		for _, c := range k.checks() {
			f := k.do(ctx, c)
			more = more && yield(Finding{c.name, f.Result, k.line(f.Detail), k.line(f.Remedy)})
		}
	}
}

// Log writes one entry for each finding, and a last one with their numbers.
func Log(log *slog.Logger, findings iter.Seq[Finding]) {
	count := Tally{}
	for f := range findings {
		count[f.Result]++
		level := slog.LevelInfo
		switch f.Result {
		case ResultWarning:
			level = slog.LevelWarn
		case ResultFailure:
			level = slog.LevelError
		}
		attrs := []any{"check", f.Check, "result", string(f.Result)}
		if f.Remedy != "" {
			attrs = append(attrs, "remedy", f.Remedy)
		}
		log.Log(context.Background(), level, "Check "+f.Check+": "+f.Detail, attrs...)
	}
	log.Info("Check ended: "+count.String(),
		"ok", count[ResultOK], "warnings", count[ResultWarning], "failures", count[ResultFailure], "skipped", count[ResultSkipped], "interrupted", count[ResultInterrupted])
}

// Tally counts findings.
type Tally map[Result]int

func (count Tally) String() string {
	text := fmt.Sprintf("%d ok", count[ResultOK])
	for _, r := range []Result{ResultWarning, ResultFailure} {
		if n := count[r]; n > 0 {
			text += ", " + audit.Count(n, string(r))
		}
	}
	for _, r := range []Result{ResultSkipped, ResultInterrupted} {
		if n := count[r]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, r)
		}
	}
	return text
}

// check is one check, and the bucket that it needs, "" for none.
type check struct {
	name, bucket string
	look         func(context.Context) Finding // without its name
}

// checkup is a checkup under way, with what its checks have found out for those that follow.
type checkup struct {
	cfg   config.Config
	api   *openai.Client
	store *store.Store

	current  check                // the one under way
	down     map[string]string    // unusable buckets, and the check that found so
	answered bool                 // by the API
	answer   audit.Page           // its answer
	skew     time.Duration        // this host's clock less the API's
	attrs    *storage.BucketAttrs // of the state's bucket, nil if they are unavailable
	retained bool                 // the state's bucket would keep a probe
	lax      bool                 // it is known to ignore preconditions
	snapshot *store.Snapshot      // nil if the state cannot be read
	pending  bool                 // what the state names as staged may not be published yet
}

// checks lists the checks in their order: a check builds on what those before it have found.
func (k *checkup) checks() []check {
	states, feed := k.cfg.StateBucket, k.cfg.Bucket
	list := slices.Concat([]check{
		{"settings", "", k.settings},
		{"api", "", k.apiAnswers},
		{"clock", "", k.clock},
		{"tenant", "", k.tenant},
		{"bucket", states, k.stateBucket},
		{"feed_bucket", feed, k.feedBucket},
		{"retention", states, k.retention},
		{"lifecycle", states, k.lifecycle},
	}, k.probes(), []check{
		{"state", states, k.state},
		{"organization", "", k.organization},
		{"staged", states, k.staged},
		{"feed_create", feed, k.feedCreate},
		{"feed_read", feed, k.feedRead},
		{"feed", feed, k.feed},
	})
	return slices.DeleteFunc(list, func(c check) bool {
		switch c.name {
		case "tenant":
			return !k.cfg.TenantEvents
		case "feed_bucket", "feed_read":
			return k.store.OneBucket()
		}
		return false
	})
}

// do does a check, unless it makes no sense.
func (k *checkup) do(ctx context.Context, c check) Finding {
	k.current = c
	switch by := k.down[c.bucket]; {
	case c.name == "probe_delete": // it cleans up, whatever has happened
	case ctx.Err() != nil:
		return interrupted()
	case by != "":
		return skipped("bucket %q cannot be worked with: see %s", c.bucket, by)
	}
	return c.look(ctx)
}

func good(format string, args ...any) Finding {
	return Finding{Result: ResultOK, Detail: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Finding {
	return Finding{Result: ResultSkipped, Detail: fmt.Sprintf(format, args...)}
}

func interrupted() Finding {
	return Finding{Result: ResultInterrupted, Detail: "not looked at: the check was interrupted"}
}

func warning(remedy, format string, args ...any) Finding {
	return Finding{Result: ResultWarning, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func failure(remedy, format string, args ...any) Finding {
	return Finding{Result: ResultFailure, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

var oneLine = strings.NewReplacer("\r\n", "; ", "\n", "; ", "\r", "; ")

func (k *checkup) line(s string) string { return oneLine.Replace(k.cfg.AdminKey.Hide(s)) }

func (k *checkup) show(s string) string { return audit.Shorten(k.cfg.AdminKey.Hide(s)) }

func (k *checkup) settings(context.Context) Finding {
	warnings := k.cfg.Warnings()
	if prefix, kind := k.cfg.AdminKey.OtherKind(); kind != "" {
		warnings = append(warnings, config.Warning{Text: fmt.Sprintf("OPENAI_ADMIN_KEY begins with %s, as %s does", prefix, kind), Remedy: openai.KeyRemedy})
	}
	if len(warnings) > 0 {
		var texts, remedies []string
		for _, w := range warnings {
			texts, remedies = append(texts, w.Text), append(remedies, w.Remedy)
		}
		return warning(strings.Join(remedies, "; "), "%s", strings.Join(texts, "; "))
	}
	left := ""
	if k.cfg.Filter != "" {
		left = ", of records that pass " + k.cfg.Filter.String() + " alone"
	}
	return good("records to %s, state in %s%s", k.store.FeedURL(k.store.FeedFolder()), k.store.StateURL(), left)
}

func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return audit.Count(int(d.Hours()/24), "day")
	case d >= 2*time.Hour:
		return audit.Count(int(d.Hours()), "hour")
	case d >= 2*time.Minute:
		return audit.Count(int(d.Minutes()), "minute")
	}
	return audit.Count(int(d.Seconds()), "second")
}
