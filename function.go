// Package auditlog collects OpenAI's organization audit logs into Cloud Storage, where a Google SecOps
// feed reads them: nothing lost, nothing repeated, nothing changed, nothing hidden, whatever fails.
//
// It is one function, triggered by Pub/Sub. A run has three steps. It reads new records, page by page,
// into a staged object outside the feed prefix. It commits: it replaces the state object, on the condition
// that nobody else has. It publishes: it renames the staged object into the feed prefix. The commit is the
// one write that decides whether a run counts:
//
//   - before it, a run that dies leaves only a staged object that no state names, and the next
//     run reads the same records again;
//   - after it, the state names the staged object until it is published, and every run begins
//     by publishing what the state names.
//
// The watermark passes no record that the API has shown us, unless the record is in an object that the
// state names or has named. With TENANT_EVENTS a run reads two streams of records, each with its own
// watermark.
//
// Objects, with default names:
//
//	openai-auditlog/openai_auditlog_YYYYMMDD_HHMMSS.ndjson  records, one per line; for the feed
//	<dir of STATE_KEY>/state.json                           state.State
//	<dir of STATE_KEY>/staged/state.json/<attempt>.ndjson   records not yet part of the feed
package auditlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"cloud.google.com/go/storage"
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	"github.com/caarlos0/env/v11"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/googleapis/gax-go/v2"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/checkup"
	"example.com/auditlog/internal/cloudlog"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/plan"
	"example.com/auditlog/internal/state"
	"example.com/auditlog/internal/store"
)

// Version is the release: in the User-Agent of requests to the API, in each run's last log entry, and in
// the function's label. A tag is v and this.
const Version = "0.1.0"

func init() {
	functions.CloudEvent("main", handle)
	// A run of 5,000 records allocates less than 16 MiB in all. Go's default, to collect garbage from 4
	// MiB on, takes a sixth of the CPU time of a small run, with the process's start, and saves no memory.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// Collector does runs. It is safe for concurrent use. Of several runs at the same time, in this
// process or elsewhere, only one commits.
type Collector struct {
	// Progress, if set, is called with a run's figures after each page.
	Progress func(Summary)

	cfg   config.Config
	api   *openai.Client
	store *store.Store
}

// Options replace a collector's connections to the outside. The zero value is for production.
type Options struct {
	Transport http.RoundTripper // to the API
	Storage   *storage.Client
	Backoff   gax.Backoff // between the attempts at one page
}

// New returns a collector with its own connections.
func New(ctx context.Context, cfg config.Config, o Options) (*Collector, error) {
	if o.Transport == nil {
		o.Transport = openai.NewTransport()
	}
	if o.Backoff == (gax.Backoff{}) {
		o.Backoff = openai.DefaultBackoff
	}
	if o.Storage == nil {
		var err error
		if o.Storage, err = store.NewClient(ctx); err != nil {
			return nil, err
		}
	}
	return &Collector{
		cfg:   cfg,
		api:   openai.New(openai.Options{Base: cfg.BaseURL, Key: cfg.AdminKey, Agent: "auditlog/" + Version, Transport: o.Transport, Backoff: o.Backoff}),
		store: store.New(o.Storage, store.Options{Layout: cfg.Layout(), Step: cfg.StepTimeout()}),
	}, nil
}

// Check checks settings, key, bucket, roles and state, as its findings are asked for. It changes neither the state nor anything
// that the feed sees.
func (c *Collector) Check(ctx context.Context) iter.Seq[checkup.Finding] {
	return checkup.Check(ctx, c.cfg, c.api, c.store)
}

// Run does one run. Its error is the reason why the run did not get everything; what it got until
// then is committed all the same. The figures are valid even with an error.
func (c *Collector) Run(ctx context.Context, log *slog.Logger) (sum Summary, err error) {
	r := c.newRun(log)
	whole, reading, cancel := c.deadlines(ctx, r.started)
	defer cancel()
	defer func() { sum = r.end(err) }()

	snapshot, err := r.load(whole)
	if err != nil {
		return sum, err
	}
	if err := r.recover(whole, snapshot); err != nil { // what an earlier run left staged
		return sum, err
	}
	plan, staged, err := r.fetch(whole, reading, r.plan(snapshot))
	defer staged.Abort()
	if err != nil {
		return sum, errors.Join(plan.Failure(), err)
	}
	if !plan.Answered() {
		return sum, plan.Stopped() // nothing to commit
	}
	next := plan.State()
	if !staged.Empty() {
		if err := staged.Close(whole); err != nil {
			return sum, errors.Join(plan.Failure(), err)
		}
		r.nameStaged(&next, staged, snapshot)
	}
	switch err := r.commit(whole, snapshot, next); {
	case errors.Is(err, store.ErrOvertaken):
		r.log.Info("Another run got ahead of this one and has collected instead of it")
		r.discard(whole, staged)
		return sum, plan.Failure()
	case err != nil:
		return sum, errors.Join(plan.Failure(), err)
	}
	err = r.publish(whole, next)
	r.reportRest(plan)
	r.sweep(whole)
	return sum, errors.Join(plan.Failure(), err)
}

type run struct {
	*Collector
	log         *slog.Logger
	started     time.Time
	sum         Summary
	collectedTo int64                  // Unix seconds; see state.CollectedTo
	committed   time.Time              // by the bucket's clock
	others      []*storage.ObjectAttrs // what is staged, but for what the state names; see sweep
	number      int64                  // of the object that this run publishes
	pace        pace
	patience    time.Duration // the longest that an attempt may take
	comparing   time.Duration // the longest wait for a comparison; see compareTimeout
}

func (c *Collector) newRun(log *slog.Logger) *run {
	for _, w := range c.cfg.Warnings() {
		log.Warn(w.Text, "remedy", w.Remedy)
	}
	return &run{Collector: c, log: log, started: time.Now(), pace: newPace(c.cfg.Concurrency)}
}

func (r *run) plan(snapshot *store.Snapshot) *plan.Plan {
	settings := plan.Settings{
		Tenant: r.cfg.TenantEvents, Filter: r.cfg.Filter, MaxRecords: r.cfg.MaxRecords, PageSize: r.cfg.PageSize,
		Overlap: r.cfg.Overlap, Lookback: r.cfg.Lookback * 3600, MaxWindows: 2 * r.cfg.Concurrency, MaxIDs: state.MaxBytes / 8 * 7,
	}
	if snapshot.First() {
		return plan.New(nil, settings, r.started)
	}
	return plan.New(&snapshot.State, settings, r.started)
}

// deadlines returns the contexts of the whole run and of its reading. Reading also ends with the
// caller, and earlier than the run, which then has time to commit and publish.
func (c *Collector) deadlines(ctx context.Context, started time.Time) (whole, reading context.Context, cancel func()) {
	end := started.Add(time.Duration(c.cfg.RunTimeout) * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	whole, cancelWhole := context.WithDeadline(context.WithoutCancel(ctx), end)
	reading, cancelReading := context.WithDeadline(ctx, end.Add(-config.Reserve(end.Sub(started))))
	return whole, reading, func() { cancelReading(); cancelWhole() }
}

// Summary holds a run's figures, as its last log entry has them.
type Summary struct {
	plan.Figures
	Retries       int           // requests sent again
	RateLimitWait time.Duration // waited because the API asked to (429)
	Bytes         int64         // of the object written
	Object        string        // its gs:// URL, "" for none
	OpenWindows   int           // windows of new records that are left for the next runs
	Backfills     int           // windows beside those, of backfills
	SetAside      int           // windows beside both, which the API cannot serve
	Watermark     int64         // last_effective_at, Unix seconds
	Overlap       int64         // seconds, at the end of what is collected, that the next run reads again
	Lag           int64         // seconds since the oldest time of which new records may be missing
	Duration      time.Duration
}

// LogValue returns the figures as a group, with times in seconds.
func (s Summary) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("records", s.Records),
		slog.Int("skipped", s.Skipped),
		slog.Int("changed", s.Changed),
		slog.Int("late", s.Late),
		slog.Int64("max_lateness_seconds", s.MaxLateness),
		slog.Int("pages", s.Pages),
		slog.Int("retries", s.Retries),
		slog.Float64("rate_limit_wait_seconds", seconds(s.RateLimitWait)),
		slog.Int64("bytes", s.Bytes),
		slog.String("object", s.Object),
		slog.Int("open_windows", s.OpenWindows),
		slog.Int("backfill_windows", s.Backfills),
		slog.Int("set_aside", s.SetAside),
		slog.Int64("watermark", s.Watermark),
		slog.Int64("overlap_seconds", s.Overlap),
		slog.Int64("lag_seconds", s.Lag),
		slog.Float64("duration_seconds", seconds(s.Duration)),
		slog.String("version", Version),
	)
}

func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1000) / 1000 }

func (r *run) end(err error) Summary {
	now := time.Now()
	r.sum.Duration = now.Sub(r.started)
	if r.committed.IsZero() { // no commit: what was read does not count
		r.sum.Records, r.sum.Bytes, r.sum.Late, r.sum.MaxLateness = 0, 0, 0, 0
	}
	if r.collectedTo > 0 {
		r.sum.Lag = max(0, now.Unix()-r.collectedTo)
	}
	if err != nil {
		r.log.Error("Run failed: "+strings.ReplaceAll(err.Error(), "\n", "; "), "run", r.sum)
	} else {
		r.log.Info("Run ended", "run", r.sum)
	}
	return r.sum
}

// connections are this process's own. They are made on first use: the start must need neither the
// network nor valid settings.
var connections struct {
	sync.Mutex
	Options
}

// newCollector reads the settings anew: since the last event, the key's file may have changed.
func newCollector(ctx context.Context) (*Collector, error) {
	cfg, err := config.Load(env.ToMap(os.Environ()))
	if err != nil {
		return nil, err
	}
	connections.Lock()
	defer connections.Unlock()
	if connections.Storage == nil {
		// The client outlives the event that creates it.
		if connections.Storage, err = store.NewClient(context.WithoutCancel(ctx)); err != nil {
			return nil, err
		}
		connections.Transport = openai.NewTransport()
	}
	return New(ctx, cfg, connections.Options)
}

// answerTime is what the framework has for sending an answer after handle has returned it.
const answerTime = time.Second

// underWay is held, for reading, by each event until its answer is out.
var underWay sync.RWMutex

// terminated ends with SIGTERM, which a host sends before it stops: runs then commit what they have read. The
// process exits once nothing is under way. The first event takes the signal: until then it ends the
// process by itself, and commands that import this package have their own use for it.
var terminated = sync.OnceValue(func() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop() // a second one does not wait
		underWay.Lock()
		os.Exit(128 + int(syscall.SIGTERM))
	})
	return ctx
})

// Logs is where the function logs to. What the framework prints goes to os.Stderr.
var Logs = os.Stderr

// handle does what an event asks for: usually a run. After an error, Pub/Sub delivers the event again.
func handle(ctx context.Context, e event.Event) error {
	underWay.RLock()
	defer time.AfterFunc(answerTime, underWay.RUnlock)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(terminated(), stop)()

	log := cloudlog.New(Logs).With("event_id", audit.Shorten(e.ID())) // the framework gives such functions no trace
	data, published, err := openEvent(e)
	if err != nil {
		log.Error(err.Error())
		return answer(http.StatusBadRequest, err)
	}
	message, err := readMessage(data, published)
	if err != nil {
		log.Error("Message refused: " + err.Error())
		return answer(http.StatusBadRequest, err)
	}
	if message.doubt != "" {
		log.Warn("Message not understood, and taken for a run: " + message.doubt)
	}
	c, err := newCollector(ctx)
	if err != nil {
		log.Error(err.Error())
		return answer(http.StatusInternalServerError, err)
	}
	switch {
	case message.check:
		checkup.Log(log, c.Check(ctx)) // no error: a second delivery would find the same
	case message.backfill != nil:
		err = c.backfillAsked(ctx, log, *message.backfill)
	default:
		_, err = c.Run(ctx, log)
	}
	if err != nil {
		return answer(http.StatusInternalServerError, err)
	}
	return nil
}

// openEvent refuses an event that comes from no topic: a trigger on the bucket itself, for example, would
// run the function for each object that it writes. It returns the message and its publish time.
func openEvent(e event.Event) (message []byte, published time.Time, err error) {
	const kind = "google.cloud.pubsub.topic.v1.messagePublished"
	if e.Type() != kind {
		return nil, published, fmt.Errorf("event type %q is not %q: point the function's trigger at a Pub/Sub topic", audit.Shorten(e.Type()), kind)
	}
	var data struct {
		Message *struct {
			Data        []byte          `json:"data"`
			PublishTime json.RawMessage `json:"publishTime"`
		} `json:"message"`
	}
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		return nil, published, errors.New(`event data is no Pub/Sub message: it must be a JSON object with a "message", whose "data" is in base64`)
	}
	if data.Message == nil {
		return nil, published, errors.New(`event data has no "message": it is no Pub/Sub message`)
	}
	if json.Unmarshal(data.Message.PublishTime, &published) != nil || published.IsZero() {
		published = time.Now()
	}
	return data.Message.Data, published, nil
}

// notShort matches what answer removes from an error: the framework prints it as a format string,
// and URLs are long.
var notShort = regexp.MustCompile(`(?i)https?://[^\s"]*|%`)

// answer turns an error that has been logged into the function's answer.
func answer(status int, err error) error {
	return cehttp.NewResult(status, "%s", audit.Shorten(notShort.ReplaceAllString(err.Error(), "…")))
}
