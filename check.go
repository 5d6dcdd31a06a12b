package auditlog

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"
)

// Result is what a check has come to.
type Result string

const (
	ResultOK      Result = "ok"
	ResultWarning Result = "warning" // runs go on, but somebody should look
	ResultFailure Result = "failure" // runs fail, or would
	ResultSkipped Result = "skipped" // not looked at; no fault
)

// Finding is what one check has found.
type Finding struct {
	Check  string `json:"check"`
	Result Result `json:"result"`
	Detail string `json:"detail"`           // one line
	Remedy string `json:"remedy,omitempty"` // what to do about a warning or a failure
}

const (
	apiCheckTimeout = 20 * time.Second
	skewNoted       = 5 * time.Second // below it the Date's whole seconds and the way of the answer tell nothing
	skewTolerated   = time.Minute
)

// Check looks whether everything that runs need is there, and says what lacks.
// It changes neither the state nor anything that the feed sees: what it writes
// is a probe object beside the staged ones, which it removes again. A check that
// fails keeps no other from being made, unless it makes that meaningless.
func (c *Collector) Check(ctx context.Context) []Finding {
	k := &checkup{Collector: c, down: map[string]string{}}
	k.settings()
	organization, answered := k.audit(ctx)
	k.tenant(ctx, answered)
	k.place(ctx)
	k.probe(ctx)
	state := k.position(ctx, organization)
	k.feed(ctx, state)
	return k.findings
}

// LogFindings writes one entry for each finding, and a last one with their
// numbers.
func LogFindings(log *slog.Logger, findings []Finding) {
	count := map[Result]int{}
	for _, f := range findings {
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
	log.Info(fmt.Sprintf("Check ended: %s", Tally(findings)),
		"ok", count[ResultOK], "warnings", count[ResultWarning], "failures", count[ResultFailure], "skipped", count[ResultSkipped])
}

// Tally sums findings up in a few words.
func Tally(findings []Finding) string {
	count := map[Result]int{}
	for _, f := range findings {
		count[f.Result]++
	}
	text := fmt.Sprintf("%d ok", count[ResultOK])
	if n := count[ResultWarning]; n > 0 {
		text += ", " + amount(n, "warning")
	}
	if n := count[ResultFailure]; n > 0 {
		text += ", " + amount(n, "failure")
	}
	if n := count[ResultSkipped]; n > 0 {
		text += fmt.Sprintf(", %d skipped", n)
	}
	return text
}

// checkup is one call of Check.
type checkup struct {
	*Collector
	findings []Finding
	down     map[string]string // buckets that cannot be worked with, and the check that found so
	lax      bool              // the bucket is known to ignore preconditions
}

func (k *checkup) add(check string, result Result, detail, remedy string) {
	clean := func(s string) string {
		return oneLine.Replace(strings.ReplaceAll(s, string(k.cfg.AdminKey), "[secret]"))
	}
	k.findings = append(k.findings, Finding{check, result, clean(detail), clean(remedy)})
}

func (k *checkup) ok(check, format string, args ...any) {
	k.add(check, ResultOK, fmt.Sprintf(format, args...), "")
}

func (k *checkup) skip(check, format string, args ...any) {
	k.add(check, ResultSkipped, fmt.Sprintf(format, args...), "")
}

func (k *checkup) warn(check, remedy, format string, args ...any) {
	k.add(check, ResultWarning, fmt.Sprintf(format, args...), remedy)
}

func (k *checkup) fail(check, remedy, format string, args ...any) {
	k.add(check, ResultFailure, fmt.Sprintf(format, args...), remedy)
}

// settings says what the settings come to; they have been found good.
func (k *checkup) settings() {
	if k.cfg.stateInFeed() {
		k.warn("settings", "set STATE_KEY to a name outside, for example state/"+k.cfg.StateKey+", and move the object there if there is one",
			"STATE_KEY %q lies under GCS_PREFIX %q, where the feed ingests it and may delete it", k.cfg.StateKey, k.cfg.Prefix)
		return
	}
	left := ""
	if k.cfg.filter != "" {
		left = ", of records that pass " + k.cfg.filter.String() + " alone"
	}
	k.ok("settings", "records to %s, state in %s%s", k.logURL(k.cfg.Prefix+"/"), k.stateURL(), left)
}

// audit asks the API for one record, and its clock for the time. It returns the
// key's organization, "" where the API does not say.
func (k *checkup) audit(ctx context.Context) (organization string, answered bool) {
	p, err := k.ask(ctx, false)
	switch {
	case err != nil && ctx.Err() != nil:
		k.skip("api", "interrupted")
		k.skip("clock", "interrupted")
		return "", false
	case err != nil:
		detail, remedy := explainAPI(err)
		k.fail("api", remedy, "%s", detail)
		k.skip("clock", "the API gave no good answer to read its Date from")
		return "", false
	}
	whose := ""
	if p.organization != "" {
		whose = fmt.Sprintf(", of organization %q", shorten(p.organization))
	}
	has := "has no records"
	if len(p.records) > 0 {
		has = "has records"
	}
	k.ok("api", "%s answers with this key%s; it %s of the last %s", k.cfg.BaseURL, whose, has, amount(int(k.cfg.Lookback), "hour"))
	k.clock(p.date, time.Now())
	return p.organization, true
}

// ask asks the API for one record that a run collects.
func (k *checkup) ask(ctx context.Context, tenant bool) (page, error) {
	ctx, cancel := context.WithTimeout(ctx, apiCheckTimeout)
	defer cancel()
	now := time.Now().Unix()
	q := query{gte: now - k.cfg.Lookback*3600, lte: now, limit: 1, tenant: tenant, filter: k.cfg.filter}
	return k.api.page(ctx, q, new(bytes.Buffer), func(error, time.Duration) {})
}

// tenant asks the API for one tenant-scoped record, where those are collected.
func (k *checkup) tenant(ctx context.Context, answered bool) {
	const check = "tenant"
	if !k.cfg.TenantEvents {
		return
	}
	if !answered {
		k.skip(check, "needs the API: see api")
		return
	}
	_, err := k.ask(ctx, true)
	switch {
	case err != nil && ctx.Err() != nil:
		k.skip(check, "interrupted")
	case noTenant(err):
		detail, _ := explainAPI(err)
		k.warn(check, noTenantRemedy, "there are no tenant-scoped events for this key: %s", detail)
	case err != nil:
		detail, remedy := explainAPI(err)
		k.fail(check, remedy, "asking for tenant-scoped events: %s", detail)
	default:
		k.ok(check, "the API brings tenant-scoped events")
	}
}

// explainAPI says what is wrong with the API's answer, and what to do.
func explainAPI(err error) (detail, remedy string) {
	detail = strings.Replace(err.Error(), "this run's deadline", fmt.Sprintf("the %s that this check takes", apiCheckTimeout), 1)
	var answer *apiError
	var reach *netError
	var dns *net.DNSError
	var certificate *x509.UnknownAuthorityError
	switch {
	case errors.As(err, &answer):
		detail = strings.Replace(detail, " ("+answer.hint+")", "", 1)
		switch {
		case answer.hint != "":
			remedy = answer.hint
		case answer.status == http.StatusTooManyRequests:
			remedy = "try again later; runs obey the wait. Where it stays so, look at the organization's limits and at what else uses its Admin keys"
		case answer.status >= 500:
			remedy = "try again later, and look at status.openai.com; runs go on by themselves once it answers"
		default:
			remedy = "read what the API says; check OPENAI_BASE_URL, and a proxy on the way"
		}
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("the audit log API gave no answer within %s", apiCheckTimeout), "check OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it"
	case errors.As(err, &dns):
		remedy = "check the host's name in OPENAI_BASE_URL, and the name resolution of this host"
	case errors.As(err, &certificate):
		remedy = "a proxy on the way signs with a certificate that this host does not trust: add its authority, or go around it"
	case errors.As(err, &reach):
		remedy = "check host and port in OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it"
	case errors.Is(err, errCutBody):
		remedy = "try again; where it stays so, a proxy on the way cuts answers off"
	default: // 200 with something else
		remedy = "check OPENAI_BASE_URL: what answers there is not the audit log API"
	}
	return detail, remedy
}

// clock compares this host's clock with the API's.
func (k *checkup) clock(date, now time.Time) {
	if date.IsZero() {
		k.skip("clock", "the API's answer has no Date to compare with")
		return
	}
	const remedy = "set this host's clock, by NTP for example"
	skew := now.Sub(date)
	side := "ahead of"
	if skew < 0 {
		skew, side = -skew, "behind"
	}
	text := fmt.Sprintf("this host's clock is %s %s the API's", roughly(skew), side)
	switch {
	case side == "behind" && skew > 24*time.Hour:
		k.fail("clock", remedy, "%s: runs refuse a state that lies a day ahead", text)
	case side != "behind" && skew >= time.Duration(k.cfg.Lookback)*time.Hour:
		k.fail("clock", remedy, "%s: a first run would begin after the newest record, and is refused", text)
	case side == "behind" && skew > skewTolerated:
		k.warn("clock", remedy, "%s: records come that much later", text)
	case skew > skewTolerated:
		k.warn("clock", remedy, "%s: runs take care of that, but the times in logs and names are wrong", text)
	case skew > skewNoted:
		k.ok("clock", "%s", text)
	default:
		k.ok("clock", "this host's clock agrees with the API's")
	}
}

// roughly is a duration for people.
func roughly(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return amount(int(d.Hours()/24), "day")
	case d >= 2*time.Hour:
		return amount(int(d.Hours()), "hour")
	case d >= 2*time.Minute:
		return amount(int(d.Minutes()), "minute")
	}
	return amount(int(d.Seconds()), "second")
}

func amount(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
