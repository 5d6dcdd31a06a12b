package config

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/openai"
)

// FuzzFilter: whatever the settings hold, a request asks for just that and for what
// it would ask without.
func FuzzFilter(f *testing.F) {
	f.Add("login.failed, key.created", "a+b@x.org,")
	f.Add("a&limit=1", "=,%,%zz,;")
	f.Add(" ,\u00a0,\u2028", "\xff")
	f.Fuzz(func(t *testing.T, types, emails string) {
		c, err := Load(environ("EVENT_TYPES", types, "ACTOR_EMAILS", emails))
		if err != nil {
			return
		}
		if err := c.Filter.Check(); err != nil {
			t.Fatal(err)
		}
		got, err := url.ParseQuery(audit.Request{Gte: 1, Lte: 2, Limit: 3, After: "x", Filter: c.Filter}.Query())
		if err != nil {
			t.Fatal(err)
		}
		want := url.Values{"effective_at[gte]": {"1"}, "effective_at[lt]": {"3"}, "limit": {"3"}, "after": {"x"}}
		for name, list := range map[string]string{"event_types[]": types, "actor_emails[]": emails} {
			var values []string
			for v := range strings.SplitSeq(list, ",") {
				if v = strings.TrimSpace(v); v != "" && !slices.Contains(values, v) {
					values = append(values, v)
				}
			}
			if slices.Sort(values); len(values) > 0 {
				want[name] = values
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q and %q make another query (-want +got):\n%s", types, emails, diff)
		}
	})
}

// FuzzConfig: any values of the settings are an error that names those at
// fault and shows no key, or settings within their bounds, with names that do
// not get in each other's way.
func FuzzConfig(f *testing.F) {
	f.Add("logs", testKey, "", "", "", "", "", "", "", "", "")
	f.Add("logs", testKey+"\r\n", "/logs/openai/", "state/openai-auditlog/state.json", "states", "1", "100", "1", "0", "http://proxy:8080/v1/", "60")
	f.Add("gs://logs", "two keys", "/", "a/", "b/c", "0", "101", "-1", "1.5", "ftp://u:hunter2@x", "99999999999999999999")
	f.Add("logs", testKey, "state/staged/state.json/feed", "state/state.json", "logs", "5000", "1", "24", "120", "", "480")
	f.Add("logs", testKey, "staged", "state/..", "", "", "", "", "", "", "")
	f.Add("logs", testKey, "staged", "staged/state", "", "2147483648", "", "", "", "https://proxy/v1#", "")
	f.Add("logs", testKey, "", "", "", "", "", "", "", "https://proxy/v1?", "")
	f.Add("logs\t", testKey, "feed\n", "\xfcber", "a b", "", "", "", "", "", "")
	f.Add("logs", testKey, "gs://logs/feed", "", "", "", "", "", "", "", "")
	f.Add("logs", testKey, "a//b", "a/b/c", "", "", "", "", "", "", "")
	f.Add("logs", testKey+`"`, "../x/.", "", "", "", "", "", "", "", "")
	f.Add("logs", "", "feed", "x/..", "", "", "", "", "", "https://proxy?key=x", "")
	numbers := []struct {
		name      string
		low, high int64
		of        func(Config) int64
	}{
		{"MAX_RECORDS", 1, math.MaxInt32, func(c Config) int64 { return int64(c.MaxRecords) }},
		{"PAGE_SIZE", 1, 100, func(c Config) int64 { return int64(c.PageSize) }},
		{"LOOKBACK_HOURS", 1, 100 * 366 * 24, func(c Config) int64 { return c.Lookback }},
		{"OVERLAP_SECONDS", 0, 366 * 24 * 3600, func(c Config) int64 { return c.Overlap }},
		{"RUN_TIMEOUT_SECONDS", 1, 24 * 3600, func(c Config) int64 { return c.RunTimeout }},
	}
	f.Fuzz(func(t *testing.T, bucket, key, prefix, stateKey, stateBucket, maxRecords, pageSize, lookback, overlap, base, timeout string) {
		const mark = "sk-admin-" // begins each key, so that it cannot be mistaken for words of the error
		if key != "" {
			key = mark + strings.TrimPrefix(key, mark)
		}
		environ := map[string]string{
			"GCS_BUCKET": bucket, "OPENAI_ADMIN_KEY": key, "GCS_PREFIX": prefix, "STATE_KEY": stateKey, "STATE_BUCKET": stateBucket,
			"MAX_RECORDS": maxRecords, "PAGE_SIZE": pageSize, "LOOKBACK_HOURS": lookback, "OVERLAP_SECONDS": overlap,
			"OPENAI_BASE_URL": base, "RUN_TIMEOUT_SECONDS": timeout,
		}
		c, err := Load(environ)
		for _, n := range numbers {
			v, parseErr := strconv.ParseInt(environ[n.name], 10, 64)
			good := environ[n.name] == "" || parseErr == nil && v >= n.low && v <= n.high
			if named := err != nil && strings.Contains(err.Error(), " "+n.name+": "); named == good {
				t.Fatalf("%s is %q, error %v", n.name, environ[n.name], err)
			}
			if err == nil && environ[n.name] != "" && n.of(c) != v {
				t.Fatalf("%s is %q, read as %d", n.name, environ[n.name], n.of(c))
			}
		}
		if err != nil {
			text := err.Error()
			if !slices.ContainsFunc(Settings(), func(s Setting) bool { return strings.HasPrefix(text, "bad settings: "+s.Name+": ") }) {
				t.Fatalf("error begins with no setting: %v", err)
			}
			delete(environ, "OPENAI_ADMIN_KEY")
			if strings.Contains(text, mark) && !strings.Contains(fmt.Sprintf("%q", environ), mark) {
				t.Fatalf("error shows the key: %v", err)
			}
			if strings.ContainsAny(text, "\n\r") {
				t.Fatalf("error has more than one line: %q", err)
			}
			return
		}

		for _, name := range []string{c.Bucket, c.StateBucket, c.Prefix, c.StateKey} {
			if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
				t.Fatalf("accepted the name %q", name)
			}
		}
		if parts := strings.Split(c.Prefix, "/"); slices.Contains(parts, ".") || slices.Contains(parts, "..") || strings.HasPrefix(prefix, "gs://") {
			t.Fatalf("accepted the prefix %q", prefix)
		}
		for _, w := range c.Warnings() {
			if w.Text == "" || w.Remedy == "" || strings.ContainsAny(w.Text+w.Remedy, "\n\r") {
				t.Fatalf("warns %+v", w)
			}
		}
		if strings.Contains(c.Bucket+c.StateBucket, "/") {
			t.Fatalf("accepted the buckets %q and %q", c.Bucket, c.StateBucket)
		}
		if c.AdminKey == "" || strings.ContainsFunc(string(c.AdminKey), notVisibleASCII) {
			t.Fatalf("accepted the key %q", string(c.AdminKey))
		}
		q := audit.Request{Gte: 100, Lte: 200, Limit: 100}
		sent, err := sentFor(c, q)
		if sent == nil {
			t.Fatalf("accepted the base URL %q, which no request goes to: %v", c.BaseURL, err)
		}
		u := sent.URL
		if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" ||
			!strings.HasSuffix(u.Path, "/organization/audit_logs") || u.RawQuery != q.Query() || sent.Header.Get("Authorization") != "Bearer "+string(c.AdminKey) {
			t.Fatalf("accepted the base URL %q: %+v", c.BaseURL, u)
		}

		// A sweep deletes objects in the folder of staged objects: that must be
		// this state's alone.
		staged, feed := c.Layout().StagedFolder(), c.Prefix+"/"
		folder, name := path.Split(c.StateKey)
		moved, own := strings.CutSuffix(staged, folder+"staged/"+name+"/")
		if !own || strings.ReplaceAll(moved, "staged-", "") != "" || strings.HasPrefix(c.StateKey, staged) {
			t.Fatalf("staged objects of state %q lie under %q", c.StateKey, staged)
		}
		if c.StateBucket == c.Bucket && (strings.HasPrefix(staged, feed) || strings.HasPrefix(feed, staged)) {
			t.Fatalf("staged objects lie under %q, the feed's under %q", staged, feed)
		}
		if step := c.StepTimeout(); step < 5*time.Second || step > time.Minute {
			t.Fatalf("%v for a step", step)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// sentFor returns the request that a client with these settings sends for a
// page, nil where it sends none, and why there is no page.
func sentFor(c Config, q audit.Request) (sent *http.Request, err error) {
	client := openai.New(openai.Options{Base: c.BaseURL, Key: c.AdminKey, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		sent = r
		return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody}, nil
	})})
	_, err = client.Page(context.Background(), q, new(bytes.Buffer), nil)
	return sent, err
}
