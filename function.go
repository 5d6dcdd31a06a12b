// Package auditlog collects OpenAI's organization audit logs into Cloud
// Storage, for a Google SecOps feed to read: nothing lost, nothing repeated,
// nothing changed, nothing hidden, whatever fails.
//
// It is one function, triggered by Pub/Sub. A run reads the records that are
// new, page by page, into a staged object outside the feed prefix; commits, by
// replacing the state object on the condition that nobody else has; and
// publishes, by renaming the staged object into the feed prefix. The commit is
// the one write that decides whether a run counts:
//
//   - before it, a run that dies leaves no trace but a staged object that no
//     state names, and the next run reads the same records again;
//   - after it, the state names the staged object until it is published, and
//     every run begins by publishing what the state names.
//
// The watermark never passes a record that the API showed us and that is not
// in an object that the state names, or has named. With TENANT_EVENTS there are
// two streams of records, each with a watermark of its own, in one such run.
//
// Objects, with the default settings' names:
//
//	openai-auditlog/openai_auditlog_YYYYMMDD_HHMMSS.ndjson  records, one a line; the feed's
//	<dir of STATE_KEY>/state.json                           State
//	<dir of STATE_KEY>/staged/state.json/<attempt>.ndjson   records not yet part of the feed
package auditlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
	"google.golang.org/api/option"
)

// Version goes into the User-Agent of requests to the API.
const Version = "0.1.0"

func init() {
	functions.CloudEvent("main", handle)
	// A run of 5,000 records allocates less than 16 MiB in all. Go's default, which
	// is to collect garbage from 4 MiB on, takes a sixth of the CPU time of a small
	// run, the process's start included, and saves it no memory.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// instance is the one collector of this process: made on first use, since
// starting up must neither need the network nor a good configuration.
var instance struct {
	sync.Mutex
	*Collector
}

// handle does a run for an event. Its error makes Pub/Sub deliver the event
// again.
func handle(ctx context.Context, e event.Event) error {
	log := eventLogger(ctx, NewLogger(os.Stderr), e)
	message, published, err := checkEvent(e)
	if err != nil {
		log.Error(err.Error())
		return answer(http.StatusBadRequest, err)
	}
	order, err := readOrder(message, published)
	if err != nil {
		log.Error("Message refused: " + err.Error())
		return answer(http.StatusBadRequest, err)
	}
	c, err := sharedCollector(ctx)
	if err != nil {
		log.Error(err.Error())
		return answer(http.StatusInternalServerError, err)
	}
	// A host that shuts down asks first: what has been read by then is committed.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	switch {
	case order.check:
		LogFindings(log, c.Check(ctx)) // delivered again, it would find the same
	case order.backfill != nil:
		err = c.backfillAsked(ctx, log, *order.backfill)
	default:
		_, err = c.Run(ctx, log)
	}
	if err != nil {
		return answer(http.StatusInternalServerError, err)
	}
	return nil
}

// notShort is what an answer leaves out of an error: the framework prints it
// as a format string, and URLs are long.
var notShort = regexp.MustCompile(`(?i)https?://[^\s"]*|%`)

var oneLine = strings.NewReplacer("\r\n", "; ", "\n", "; ", "\r", "; ")

// answer makes an error that has been logged the function's answer.
func answer(status int, err error) error {
	text := notShort.ReplaceAllString(err.Error(), "…")
	return cehttp.NewResult(status, "%s", oneLine.Replace(text))
}

// checkEvent refuses an event that no topic has sent: a trigger on the bucket
// itself, say, would run the function for each object that it writes. It returns
// the message, and when it was published.
func checkEvent(e event.Event) (message []byte, published time.Time, err error) {
	const kind = "google.cloud.pubsub.topic.v1.messagePublished"
	if e.Type() != kind {
		return nil, published, fmt.Errorf("event type %q is not %q: point the function's trigger at a Pub/Sub topic", e.Type(), kind)
	}
	var data struct {
		Message *struct {
			Data        []byte          `json:"data"`
			PublishTime json.RawMessage `json:"publishTime"`
		} `json:"message"`
	}
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		return nil, published, fmt.Errorf("event data is no Pub/Sub message: %w", err)
	}
	if data.Message == nil {
		return nil, published, errors.New(`event data has no "message": it is no Pub/Sub message`)
	}
	if json.Unmarshal(data.Message.PublishTime, &published) != nil {
		published = time.Now()
	}
	return data.Message.Data, published, nil
}

func sharedCollector(ctx context.Context) (*Collector, error) {
	instance.Lock()
	defer instance.Unlock()
	if instance.Collector == nil {
		cfg, err := LoadConfig(env.ToMap(os.Environ()))
		if err != nil {
			return nil, err
		}
		// The client outlives the event that makes it.
		if instance.Collector, err = New(context.WithoutCancel(ctx), cfg); err != nil {
			return nil, err
		}
	}
	return instance.Collector, nil
}

// Collector does runs. It is safe for concurrent use; of runs at the same time,
// in this process or elsewhere, one commits.
type Collector struct {
	// Progress, if set, is told a run's figures after each page.
	Progress func(Summary)

	cfg    Config
	api    *api
	logs   *storage.BucketHandle // the feed's
	states *storage.BucketHandle // of the state and of staged objects
	state  *storage.ObjectHandle
}

// New returns a collector with connections of its own. opts are for the
// storage client.
func New(ctx context.Context, cfg Config, opts ...option.ClientOption) (*Collector, error) {
	return newCollector(ctx, cfg, newTransport(), opts...)
}

func newCollector(ctx context.Context, cfg Config, transport http.RoundTripper, opts ...option.ClientOption) (*Collector, error) {
	client, err := storage.NewClient(ctx, append([]option.ClientOption{storage.WithJSONReads()}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("making the storage client: %w", err)
	}
	c := &Collector{
		cfg:    cfg,
		api:    newAPI(cfg.BaseURL, cfg.AdminKey, transport),
		logs:   client.Bucket(cfg.Bucket),
		states: client.Bucket(cfg.StateBucket),
	}
	c.state = c.states.Object(cfg.StateKey)
	return c, nil
}

// Run does one run. Its error says what kept it from getting everything; what
// it had got by then is committed all the same. The figures stand whatever the
// error.
func (c *Collector) Run(ctx context.Context, log *slog.Logger) (sum Summary, err error) {
	r := c.newRun(log)
	whole, reading, cancel := c.deadlines(ctx, r.started)
	defer cancel()
	defer func() { sum = r.end(err) }()

	state, err := r.load(whole)
	if err != nil {
		return sum, err
	}
	if err := r.recover(whole, &state); err != nil { // what an earlier run left staged
		return sum, err
	}
	streams, object, stopped := r.gather(whole, reading, state)
	defer object.abort()
	if !answered(streams) {
		return sum, stopped // nothing to commit
	}
	next := r.next(state.State, streams)
	if !object.empty() {
		if err := object.close(whole, c.cfg.stepTimeout()); err != nil {
			return sum, errors.Join(failure(stopped), fmt.Errorf("writing %s: %w", c.stagedURL(object.name), storageHint(err)))
		}
		next.Staged, next.StagedGeneration, next.StagedBucket = object.name, object.generation, c.cfg.StateBucket
		next.LastObject = c.finalName(state.LastObject, r.started)
	}
	switch err := r.commit(whole, state, next); {
	case errors.Is(err, errOvertaken):
		r.yield(whole, object)
		return sum, failure(stopped)
	case err != nil:
		return sum, errors.Join(failure(stopped), err)
	}
	err = r.publish(whole, next, stopped)
	r.tidy(whole, next.Staged)
	return sum, errors.Join(failure(stopped), err)
}

// deadlines returns the context of the whole run, and that of reading: the
// latter ends with the caller and leaves a reserve, within the former, to
// commit and publish what has been read.
func (c *Collector) deadlines(ctx context.Context, started time.Time) (whole, reading context.Context, cancel func()) {
	end := started.Add(time.Duration(c.cfg.RunTimeout) * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	whole, cancelWhole := context.WithDeadline(context.WithoutCancel(ctx), end)
	reading, cancelReading := context.WithDeadline(ctx, end.Add(-reserve(end.Sub(started))))
	return whole, reading, func() { cancelReading(); cancelWhole() }
}
