package proof

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/auditlog/internal/sim/fault"
	"example.com/auditlog/internal/state"
)

// TestStorageHangs: a storage request that is never answered, handled or not, does not
// end a run.
func TestStorageHangs(t *testing.T) {
	for _, stateBucket := range []string{"", "states"} {
		for _, kind := range []fault.Kind{fault.Hang, fault.HangAfter} {
			for n, done := 1, false; !done; n++ {
				inBubble(t, func(t *testing.T, h *simulation) {
					h.Env["STATE_BUCKET"] = stateBucket
					for range 2 {
						h.Add(10, 1, 1)
						h.BucketFaults.Set(at(n, fault.Fault{Kind: kind}))
						if sum := h.MustRun(); sum.Records != 10 || sum.Duration > time.Minute {
							t.Errorf("%s at request %d: %+v", kind, n, sum)
						}
						done = h.BucketFaults.Count() < n
						h.BucketFaults.Set(nil)
						time.Sleep(time.Hour)
					}
					h.Settle()
				})
			}
		}
	}
}

// TestConcealed: in a bucket that answers 403 for whatever is missing, and lists only
// inside the state's folder, all works as elsewhere.
func TestConcealed(t *testing.T) {
	for _, stateBucket := range []string{"", "states"} {
		inBubble(t, func(t *testing.T, h *simulation) {
			h.Env["STATE_BUCKET"] = stateBucket
			h.Conceal()
			quiet := func(what string) {
				t.Helper()
				h.BucketFaults.Set(nil) // the count begins anew
				if sum := h.MustRun(); sum.Records != 0 || h.BucketFaults.Count() > 3 {
					t.Errorf("%s: %+v, %+v", what, sum, h.BucketFaults.Log())
				}
				time.Sleep(time.Hour)
			}
			quiet("first run, without news")
			h.Add(10, 1, 1)
			h.MustRun()
			quiet("after news")
			quiet("no news")

			// A crash before the commit, and one after it.
			for _, dies := range []func(*http.Request) bool{
				func(r *http.Request) bool { return r.URL.Query().Get("name") == h.Env["STATE_KEY"] },
				func(r *http.Request) bool { return strings.Contains(r.URL.Path, "To/") },
			} {
				h.Add(10, 1, 1)
				tr := &fault.Transport{Decide: func(r *http.Request) fault.Fault {
					if dies(r) {
						return fault.Fault{Kind: fault.Die}
					}
					return fault.Fault{}
				}}
				ctx, c, cancel := h.through(tr)
				if _, err := h.RunWith(ctx, c); err == nil {
					t.Error("a run that died ended well")
				}
				cancel()
				time.Sleep(time.Hour)
				h.MustRun()
				quiet("after recovery")
			}

			now := time.Now()
			if _, err := h.collector().Backfill(t.Context(), slog.New(slog.DiscardHandler), state.Backfill{From: now.Add(-72 * time.Hour), To: now.Add(-48 * time.Hour)}); err != nil {
				t.Error(err)
			}
			h.MustRun()
			h.tidied()
			h.Settle()
		})
	}
}
