package checkup

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/openai"
)

const (
	apiCheckTimeout = 20 * time.Second
	skewNoted       = 5 * time.Second // less may be the Date's whole seconds and the answer's way
	skewTolerated   = time.Minute
)

// apiAnswers asks the API for one record.
func (k *checkup) apiAnswers(ctx context.Context) Finding {
	p, err := k.ask(ctx, false)
	switch {
	case err != nil && ctx.Err() != nil:
		return interrupted()
	case err != nil:
		detail, remedy := explainAPI(err)
		return failure(remedy, "%s", detail)
	}
	k.answered, k.answer, k.skew = true, p, time.Since(p.Date)
	whose := ""
	if p.Organization != "" {
		whose = fmt.Sprintf(", of organization %q", audit.Shorten(p.Organization))
	}
	has := "has no records"
	if len(p.Records) > 0 {
		has = "has records"
	}
	return good("%s answers with this key%s; it %s of the last %s", k.cfg.BaseURL, whose, has, audit.Count(int(k.cfg.Lookback), "hour"))
}

// ask asks the API for one record that a run would collect.
func (k *checkup) ask(ctx context.Context, tenant bool) (audit.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, apiCheckTimeout)
	defer cancel()
	now := time.Now().Unix()
	r := audit.Request{Gte: now - k.cfg.Lookback*3600, Lte: now, Limit: 1, Tenant: tenant, Filter: k.cfg.Filter}
	return k.api.Page(ctx, r, new(bytes.Buffer), func(error, time.Duration) {})
}

// tenant asks the API for one tenant-scoped record.
func (k *checkup) tenant(ctx context.Context) Finding {
	if !k.answered {
		return skipped("needs the API: see api")
	}
	_, err := k.ask(ctx, true)
	switch {
	case err == nil:
		return good("the API brings tenant-scoped events")
	case ctx.Err() != nil:
		return interrupted()
	}
	detail, remedy := explainAPI(err)
	if f, ok := errors.AsType[*audit.Failure](err); ok && f.RefusesTenant() {
		return warning(audit.NoTenantRemedy, "there are no tenant-scoped events for this key: %s", detail)
	}
	return failure(remedy, "asking for tenant-scoped events: %s", detail)
}

func explainAPI(err error) (detail, remedy string) {
	detail = strings.Replace(err.Error(), "this run's deadline", fmt.Sprintf("the %s that this check takes", apiCheckTimeout), 1)
	answer, answered := errors.AsType[*openai.Error](err)
	switch {
	case answered:
		detail = strings.Replace(detail, " ("+answer.Hint+")", "", 1)
		switch {
		case answer.Hint != "":
			remedy = answer.Hint
		case answer.Status == http.StatusTooManyRequests:
			remedy = "try again later; runs obey the wait. Where it stays so, look at the organization's limits and at what else uses its Admin keys"
		case answer.Status >= 500:
			remedy = "try again later, and look at status.openai.com; runs go on by themselves once it answers"
		default:
			remedy = "read what the API says; check OPENAI_BASE_URL, and a proxy on the way"
		}
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("the audit log API gave no answer within %s", apiCheckTimeout), "check OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it"
	case errors.As(err, new(*net.DNSError)):
		remedy = "check the host's name in OPENAI_BASE_URL, and the name resolution of this host"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		remedy = "a proxy on the way signs with a certificate that this host does not trust: add its authority, or go around it"
	case errors.As(err, new(*openai.Unreachable)):
		remedy = "check host and port in OPENAI_BASE_URL, and whether a firewall or proxy keeps this host from it"
	case errors.Is(err, audit.ErrCutBody):
		remedy = "try again; where it stays so, a proxy on the way cuts answers off"
	default: // 200 with something else
		remedy = "check OPENAI_BASE_URL: what answers there is not the audit log API"
	}
	return detail, remedy
}

// clock compares this host's clock with the API's.
func (k *checkup) clock(context.Context) Finding {
	switch {
	case !k.answered:
		return skipped("the API gave no good answer to read its Date from")
	case k.answer.Date.IsZero():
		return skipped("the API's answer has no Date to compare with")
	}
	const remedy = "set this host's clock, by NTP for example"
	skew, side := k.skew, "ahead of"
	if skew < 0 {
		skew, side = -skew, "behind"
	}
	text := fmt.Sprintf("this host's clock is %s %s the API's", roughly(skew), side)
	switch {
	case side == "behind" && skew > 24*time.Hour:
		return failure(remedy, "%s: runs refuse a state that lies a day ahead", text)
	case side != "behind" && skew >= time.Duration(k.cfg.Lookback)*time.Hour:
		return failure(remedy, "%s: a first run would begin after the newest record, and is refused", text)
	case side == "behind" && skew > skewTolerated:
		return warning(remedy, "%s: records come that much later", text)
	case skew > skewTolerated:
		return warning(remedy, "%s: runs take care of that, but the times in logs and names are wrong", text)
	case skew > skewNoted:
		return good("%s", text)
	}
	return good("this host's clock agrees with the API's")
}
