package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/auditlog"
	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/sim/world"
	"example.com/auditlog/internal/store"
)

// A sandbox begins with days of records. Runs have collected the newest of them, a part each; the
// rest is there for a backfill.
const (
	sandboxDays   = 40
	collectedDays = 3
	part          = 6 * 60 * 60 // seconds
)

// mostRecords is the highest rate, a minute, at which records can be made.
const mostRecords = 60_000

func sandboxCommand() *cobra.Command {
	var dir string
	var rate int
	c := &cobra.Command{
		Use:   "sandbox",
		Short: "Try every command without a cloud: a simulated API and bucket that stay up",
		Long: `sandbox starts a simulated audit log API and a bucket on ports of this machine, and
keeps them up until Ctrl-C. It prints export lines: paste them into another shell,
and every command works there, without an account, a key or a cloud.

The API has the records of 40 days. Real runs have collected the last 3 of them.
New records appear all the time; one in ten appears late, up to 100 seconds after
its time. On request the API or the bucket fails: the sandbox prints how.

The bucket is in memory. With --dir its objects are files in that directory, and
another sandbox there continues with the same bucket and the same records.

Standard output gets the export lines, and nothing else.`,
		Example: `  auditlog sandbox
  auditlog sandbox --dir sandbox --rate 600
  auditlog sandbox >exports & sleep 2; . ./exports; auditlog status`,
		Args: func(cmd *cobra.Command, args []string) error {
			if rate < 0 || rate > mostRecords {
				return fmt.Errorf("--rate: %d is not in 0 to %d", rate, mostRecords)
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			s, err := newSandbox(dir)
			if err != nil {
				return err
			}
			defer s.Close()
			runs, err := s.history(ctx)
			if err != nil {
				return err
			}
			if err := s.explain(cmd.OutOrStdout(), os.Stderr, rate, runs); err != nil {
				return err
			}
			return s.grow(ctx, rate)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "keep the bucket in this directory (default: in memory)")
	c.Flags().IntVar(&rate, "rate", 10, "new records a minute")
	return c
}

// sandbox is a world whose records the API gets all the time.
type sandbox struct {
	*world.World
	dir       string
	generator *auditapi.Generator
	kept      *os.File // the API's records, for the next sandbox in dir; nil without dir
}

// newSandbox starts a world. Its bucket has the README's name, so that the commands there work
// as they are.
func newSandbox(dir string) (*sandbox, error) {
	w, err := world.New(world.Options{Dir: dir, Buckets: []string{"my-bucket"}})
	if err != nil {
		return nil, err
	}
	s := &sandbox{World: w, dir: dir, generator: auditapi.NewGenerator(rand.Uint64())}
	if dir == "" {
		return s, nil
	}
	if err := s.restore(filepath.Join(dir, "records.ndjson")); err != nil {
		s.Close()
		return nil, fmt.Errorf("reading the API's records of an earlier sandbox: %w; name a new directory with --dir", err)
	}
	return s, nil
}

// restore gives the API the records of an earlier sandbox.
func (s *sandbox) restore(name string) (err error) {
	if s.kept, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return err
	}
	data, err := io.ReadAll(s.kept)
	if err != nil || len(data) == 0 {
		return err
	}
	return s.API.Add(bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))...)
}

// add makes records of these times appear. They are kept first: the bucket must have none that the
// next sandbox does not know.
func (s *sandbox) add(ats ...int64) error {
	records := make([][]byte, len(ats))
	for i, at := range ats {
		records[i] = s.generator.Next(at)
	}
	if s.kept != nil {
		if _, err := s.kept.Write(append(bytes.Join(records, []byte("\n")), '\n')); err != nil {
			return fmt.Errorf("keeping the API's records: %w", err)
		}
	}
	return s.API.Add(records...)
}

// history makes records of the past, and lets runs collect the last days of them: each run what has
// appeared since the one before. A sandbox that continues has a history already.
func (s *sandbox) history(ctx context.Context) (runs int, err error) {
	if len(s.API.Records()) > 0 {
		return 0, nil
	}
	collector, err := s.collector(ctx)
	if err != nil {
		return 0, err
	}
	const day = 24 * 60 * 60
	now := time.Now().Unix()
	for from := now - sandboxDays*day; from < now && ctx.Err() == nil; from += part {
		if err := s.add(workday(from, min(from+part, now))...); err != nil {
			return runs, err
		}
		if from < now-collectedDays*day {
			continue
		}
		if _, err := collector.Run(ctx, slog.New(slog.DiscardHandler)); err != nil {
			return runs, fmt.Errorf("a run that collects the history: %w", err)
		}
		runs++
	}
	return runs, nil
}

// workday returns times of records: most are in working hours.
func workday(from, to int64) (ats []int64) {
	for at := from; at < to; {
		ats = append(ats, at)
		most := int64(40 * 60)
		if t := time.Unix(at, 0).UTC(); t.Hour() >= 8 && t.Hour() < 18 && t.Weekday() != time.Saturday && t.Weekday() != time.Sunday {
			most = 10 * 60
		}
		at += 1 + rand.N(most)
	}
	return ats
}

// collector is one of the sandbox's settings, with a first run that reaches further back.
func (s *sandbox) collector(ctx context.Context) (*auditlog.Collector, error) {
	settings := s.Settings()
	settings["LOOKBACK_HOURS"] = fmt.Sprint(24 * collectedDays)
	cfg, err := config.Load(settings)
	if err != nil {
		return nil, err
	}
	client, err := store.NewClient(ctx, s.StorageOptions()...)
	if err != nil {
		return nil, err
	}
	return auditlog.New(ctx, cfg, auditlog.Options{Transport: s.Transport(), Storage: client})
}

// explain says what there is, and how to use it.
func (s *sandbox) explain(stdout, stderr io.Writer, rate, runs int) error {
	url, err := s.serveFaults()
	if err != nil {
		return err
	}
	say := func(format string, args ...any) {
		fmt.Fprintln(stderr, wrappedLine(fmt.Sprintf(format, args...), columns(stderr)))
	}
	say("A simulated audit log API and a bucket are up; Ctrl-C ends them. Paste this into another shell:\n")
	settings := s.Settings()
	settings["SANDBOX_FAULTS"] = url
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(stdout, "export %s=%s\n", name, settings[name])
	}
	say("\nThen every command works there: auditlog check, status, run, backfill --from 30d, udm gs://my-bucket/openai-auditlog/, ...\n")
	say("The API has %s, and gets %d more a minute, some of them late.", audit.Count(len(s.API.Records()), "record"), rate)
	if runs > 0 {
		say("%s collected the last %d days of it.", audit.Count(runs, "run"), collectedDays)
	}
	if s.dir != "" {
		say("The bucket is %s: another sandbox with --dir %s continues with it.", filepath.Join(s.dir, "my-bucket"), s.dir)
	}
	say("To make something fail: curl $SANDBOX_FAULTS/NAME, where NAME is")
	for _, f := range sandboxFaults {
		say("    %-7s  %s", f.name, f.text)
	}
	return nil
}

// grow makes records appear until ctx ends.
func (s *sandbox) grow(ctx context.Context, rate int) error {
	if rate == 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(time.Minute / time.Duration(rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			at := now.Unix()
			if rand.N(10) == 0 {
				at -= 10 + rand.N[int64](90)
			}
			if err := s.add(at); err != nil {
				return err
			}
		}
	}
}

// sandboxFaults are what can be ordered. Each ends with the next.
var sandboxFaults = []struct {
	name, text string
	begin      func(*sandbox)
}{
	{"none", "everything works", func(*sandbox) {}},
	{"some", "one request in ten fails, in one way or another", func(s *sandbox) {
		s.APIFaults.Set(oneInTen)
		s.BucketFaults.Set(oneInTen)
	}},
	{"api", "the API answers 503", func(s *sandbox) { s.APIFaults.Set(always(http.StatusServiceUnavailable)) }},
	{"limit", "the API answers 429", func(s *sandbox) { s.APIFaults.Set(always(http.StatusTooManyRequests)) }},
	{"scope", "the key may not read audit logs", func(s *sandbox) { s.API.SetMissingScopes(true) }},
	{"off", "audit logging is off", func(s *sandbox) { s.API.SetForbidden(true) }},
	{"bucket", "the bucket answers 503", func(s *sandbox) { s.BucketFaults.Set(always(http.StatusServiceUnavailable)) }},
	{"roles", "the account has no role on the bucket", func(s *sandbox) {
		s.Bucket.Deny(func(string, string, string, string) bool { return true })
	}},
}

func always(status int) fault.Script {
	return func(int, *http.Request) fault.Fault { return fault.Fault{Kind: fault.Refuse, Status: status} }
}

func oneInTen(n int, _ *http.Request) fault.Fault {
	kinds := []fault.Kind{fault.Refuse, fault.Drop, fault.Lose, fault.Fail, fault.Cut}
	if n%10 != 3 {
		return fault.Fault{}
	}
	return fault.Fault{Kind: kinds[n/10%len(kinds)]}
}

// serveFaults serves orders for faults: their names are paths below url.
func (s *sandbox) serveFaults() (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go http.Serve(l, http.HandlerFunc(s.order))
	return "http://" + l.Addr().String(), nil
}

func (s *sandbox) order(w http.ResponseWriter, r *http.Request) {
	var names []string
	for _, f := range sandboxFaults {
		if r.URL.Path == "/"+f.name {
			s.APIFaults.Set(nil)
			s.BucketFaults.Set(nil)
			s.API.SetMissingScopes(false)
			s.API.SetForbidden(false)
			s.Bucket.Deny(nil)
			f.begin(s)
			fmt.Fprintln(w, f.text)
			return
		}
		names = append(names, f.name)
	}
	http.Error(w, "no such fault; there are "+strings.Join(names, ", "), http.StatusNotFound)
}
