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
	"strings"
	"time"

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
		more := true
		k := &checkup{cfg: cfg, api: api, store: st, down: map[string]string{}, found: func(f Finding) { more = more && yield(f) }}
		k.settings()
		organization, answered := k.audit(ctx)
		k.tenant(ctx, answered)
		k.bucketSettings(ctx)
		k.probe(ctx)
		snapshot := k.state(ctx, organization)
		k.feed(ctx, snapshot)
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

type checkup struct {
	cfg   config.Config
	api   *openai.Client
	store *store.Store
	found func(Finding)
	down  map[string]string // unusable buckets, and the check that found so
	lax   bool              // the bucket is known to ignore preconditions
}

var oneLine = strings.NewReplacer("\r\n", "; ", "\n", "; ", "\r", "; ")

func (k *checkup) show(s string) string { return audit.Shorten(k.cfg.AdminKey.Hide(s)) }

func (k *checkup) add(check string, result Result, detail, remedy string) {
	clean := func(s string) string { return oneLine.Replace(k.cfg.AdminKey.Hide(s)) }
	k.found(Finding{check, result, clean(detail), clean(remedy)})
}

func (k *checkup) ok(check, format string, args ...any) {
	k.add(check, ResultOK, fmt.Sprintf(format, args...), "")
}

func (k *checkup) skip(check, format string, args ...any) {
	k.add(check, ResultSkipped, fmt.Sprintf(format, args...), "")
}

func (k *checkup) interrupted(check string) {
	k.add(check, ResultInterrupted, "not looked at: the check was interrupted", "")
}

func (k *checkup) warn(check, remedy, format string, args ...any) {
	k.add(check, ResultWarning, fmt.Sprintf(format, args...), remedy)
}

func (k *checkup) fail(check, remedy, format string, args ...any) {
	k.add(check, ResultFailure, fmt.Sprintf(format, args...), remedy)
}

func (k *checkup) settings() {
	warnings := k.cfg.Warnings()
	if prefix, kind := k.cfg.AdminKey.OtherKind(); kind != "" {
		warnings = append(warnings, config.Warning{Text: fmt.Sprintf("OPENAI_ADMIN_KEY begins with %s, as %s does", prefix, kind), Remedy: openai.KeyRemedy})
	}
	if len(warnings) > 0 {
		var texts, remedies []string
		for _, w := range warnings {
			texts, remedies = append(texts, w.Text), append(remedies, w.Remedy)
		}
		k.add("settings", ResultWarning, strings.Join(texts, "; "), strings.Join(remedies, "; "))
		return
	}
	left := ""
	if k.cfg.Filter != "" {
		left = ", of records that pass " + k.cfg.Filter.String() + " alone"
	}
	k.ok("settings", "records to %s, state in %s%s", k.store.FeedURL(k.cfg.Prefix+"/"), k.store.StateURL(), left)
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
