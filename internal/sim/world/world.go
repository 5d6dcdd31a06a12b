// Package world puts the simulated audit log API and the embedded bucket behind
// two servers with faults, plays the SecOps feed that reads the bucket, and
// checks what the feed got against what the API has. Tests and the demo share
// it.
package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"example.com/auditlog/internal/sim/auditapi"
	"example.com/auditlog/internal/sim/bucket"
	"example.com/auditlog/internal/sim/fault"
)

// Key is the key that a World's API wants.
const Key = "sk-admin-of-the-simulation"

// Hosts of the servers where they are in memory.
const (
	apiHost    = "api.test"
	bucketHost = "bucket.test"
)

// Options are what a World can be made with.
type Options struct {
	Dir      string   // where the bucket keeps its files; "" for memory
	InMemory bool     // connections through pipes, as a synctest bubble needs them, instead of TCP
	Buckets  []string // the first is the log bucket; none means "logs"
	Prefix   string   // of the feed; "" means "openai-auditlog"
}

// World is an API and a bucket that serve, and the feed that reads the bucket.
type World struct {
	API          *auditapi.Server
	Bucket       *bucket.Server
	APIFaults    *fault.Handler
	BucketFaults *fault.Handler

	// Since bounds what Check wants collected: records with an effective_at
	// before it need not be, as they lie beyond the first run's look-back.
	// They may be, but only once and unaltered, too.
	Since int64

	logBucket, prefix string
	transport         *http.Transport
	apiAddr           string
	bucketAddr        string
	servers           []*http.Server
	serving           sync.WaitGroup
	feed              feed
}

// New starts a World without records or objects. Close ends it.
func New(o Options) (*World, error) {
	if len(o.Buckets) == 0 {
		o.Buckets = []string{"logs"}
	}
	if o.Prefix == "" {
		o.Prefix = "openai-auditlog"
	}
	b, err := bucket.New(o.Dir, o.Buckets...)
	if err != nil {
		return nil, err
	}
	w := &World{
		API:       auditapi.New(Key, "example-org"),
		Bucket:    b,
		logBucket: o.Buckets[0],
		prefix:    o.Prefix,
	}
	w.APIFaults, w.BucketFaults = fault.Wrap(w.API), fault.Wrap(w.Bucket)

	var apiListener, bucketListener net.Listener
	if o.InMemory {
		a, b := fault.NewPipes(apiHost), fault.NewPipes(bucketHost)
		apiListener, bucketListener = a, b
		w.transport = &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			switch strings.TrimSuffix(addr, ":80") {
			case apiHost:
				return a.Dial(ctx)
			case bucketHost:
				return b.Dial(ctx)
			}
			return nil, fmt.Errorf("dialing %s: no such host in this world", addr)
		}}
	} else {
		// Never through a proxy of the machine's.
		w.transport = &http.Transport{}
		if apiListener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			b.Close()
			return nil, err
		}
		if bucketListener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			apiListener.Close()
			b.Close()
			return nil, err
		}
	}
	w.apiAddr = w.serve(apiListener, w.APIFaults)
	w.bucketAddr = w.serve(bucketListener, w.BucketFaults)
	return w, nil
}

func (w *World) serve(l net.Listener, h http.Handler) (addr string) {
	srv := &http.Server{Handler: h} // no time-outs: their timers would outlive the test in a bubble
	w.servers = append(w.servers, srv)
	w.serving.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("serving %s: %v", l.Addr(), err))
		}
	})
	return l.Addr().String()
}

// Close ends what hangs, the connections and the servers. Clients of the World
// should be closed before.
func (w *World) Close() {
	w.APIFaults.Close()
	w.BucketFaults.Close()
	w.transport.CloseIdleConnections()
	for _, srv := range w.servers {
		srv.Close()
	}
	w.serving.Wait()
	// A connection that was just being made.
	w.transport.CloseIdleConnections()
	w.Bucket.Close()
}

// APIBase is the value of OPENAI_BASE_URL.
func (w *World) APIBase() string { return "http://" + w.apiAddr + "/v1" }

// StorageHost is the value of STORAGE_EMULATOR_HOST. It is of use over TCP only.
func (w *World) StorageHost() string { return w.bucketAddr }

// Transport returns the transport that reaches both servers, the same one each
// time. Without it a World in memory cannot be reached.
func (w *World) Transport() *http.Transport { return w.transport }

// Handler returns the API and the bucket without their servers and faults, told
// apart by the requests' hosts: for a fault.Transport.
func (w *World) Handler() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Host == w.apiAddr {
			w.API.ServeHTTP(rw, r)
		} else {
			w.Bucket.ServeHTTP(rw, r)
		}
	})
}

// StorageOptions are for storage.NewClient.
func (w *World) StorageOptions() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint("http://" + w.bucketAddr + "/storage/v1/"),
		option.WithHTTPClient(&http.Client{Transport: w.transport}),
		option.WithoutAuthentication(), // no search for credentials, which asks the network
		storage.WithJSONReads(),
	}
}

// Settings returns the collector's environment. STORAGE_EMULATOR_HOST is part
// of it over TCP, for a collector that makes its own storage client.
func (w *World) Settings() map[string]string {
	settings := map[string]string{
		"GCS_BUCKET":       w.logBucket,
		"GCS_PREFIX":       w.prefix,
		"OPENAI_ADMIN_KEY": Key,
		"OPENAI_BASE_URL":  w.APIBase(),
		"STATE_KEY":        "state/openai-auditlog/state.json",
	}
	if w.bucketAddr != bucketHost {
		settings["STORAGE_EMULATOR_HOST"] = w.bucketAddr
	}
	return settings
}
