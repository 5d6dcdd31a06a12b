package model

import "testing"

// bounds are those of a whole check, and small ones for what multiplies the
// states.
func bounds() (whole, small Bounds) {
	small = Bounds{Records: 1, Instances: 2, Attempts: 3}
	if testing.Short() {
		return small, small
	}
	return Bounds{Records: 2, Instances: 2, Attempts: 3}, small
}

// wantHolds checks a model of which every invariant must hold.
func wantHolds(t *testing.T, m Model) {
	t.Helper()
	res := m.Check()
	if res.Violated != "" {
		t.Fatalf("violated: %s\n%s", res.Violated, res.Steps())
	}
	t.Logf("%d states, %d transitions", res.States, res.Transitions)
}

// wantViolated checks a model for the invariant that must not hold.
func wantViolated(t *testing.T, m Model, name string) {
	t.Helper()
	res := m.Check()
	if res.Violated != name {
		t.Fatalf("violated: %q, want %q\n%s", res.Violated, name, res.Steps())
	}
	t.Logf("violated: %s\n%s", name, res.Steps())
}

func TestProtocol(t *testing.T) {
	whole, _ := bounds()
	three := Bounds{Records: 1, Instances: 3, Attempts: 3}
	t.Run("move", func(t *testing.T) { wantHolds(t, Model{Bounds: whole, FeedDeletes: true}) })
	t.Run("copy", func(t *testing.T) { wantHolds(t, Model{Bounds: whole, Copy: true}) })
	if !testing.Short() {
		t.Run("move, three runs", func(t *testing.T) { wantHolds(t, Model{Bounds: three, FeedDeletes: true}) })
		t.Run("copy, three runs", func(t *testing.T) { wantHolds(t, Model{Bounds: three, Copy: true}) })
	}
}

// With a STATE_BUCKET the final object alone tells that a copy has been made:
// the feed must not delete there.
func TestCopyNeedsItsFinalObject(t *testing.T) {
	whole, _ := bounds()
	wantViolated(t, Model{Bounds: whole, Copy: true, FeedDeletes: true}, "nothing repeated")
}

// An upload can land once more after the object was moved away.
func TestLateUpload(t *testing.T) {
	_, small := bounds()
	t.Run("move", func(t *testing.T) { wantHolds(t, Model{Bounds: small, FeedDeletes: true, LateUpload: true}) })
	if !testing.Short() {
		t.Run("copy", func(t *testing.T) { wantHolds(t, Model{Bounds: small, Copy: true, LateUpload: true}) })
	}
	t.Run(string(AnyGeneration), func(t *testing.T) {
		wantViolated(t, Model{Bounds: small, FeedDeletes: true, LateUpload: true, Broken: AnyGeneration}, "nothing repeated")
	})
}

// A check that cannot fail shows nothing: each rule is there for an invariant
// that does not hold without it.
func TestBroken(t *testing.T) {
	const (
		lost        = "nothing lost, whatever fails"
		uncommitted = "the feed never sees uncommitted data"
		replaced    = "the commit never replaces the name of a staged object that is not yet published"
		missing     = "an object that can still be named is there, and no sweep removes it"
		watermark   = "the watermark never passes a record that is not in an object that the state names, or has named"
		left        = "no staged object is left"
	)
	whole, _ := bounds()
	alone := Bounds{Records: 2, Instances: 1, Attempts: 2}
	for _, test := range []struct {
		broken Broken
		bounds Bounds // alone where it takes no race
		want   string
	}{
		{NoPrecondition, whole, replaced},
		{NotDurable, alone, missing},
		{StagesInFeed, alone, uncommitted},
		{NoRecovery, alone, replaced},
		{YieldsAlways, alone, watermark},
		{YieldsEarly, alone, missing},
		{ClaimsAny, whole, uncommitted},
		{SweepsEarly, whole, missing},
		{SweepsNamed, alone, watermark},
		{SweepsYoung, whole, missing},
		{NeverSweeps, alone, left},
		{LooksAtFinal, alone, lost},
	} {
		t.Run(string(test.broken), func(t *testing.T) {
			wantViolated(t, Model{Bounds: test.bounds, FeedDeletes: true, Broken: test.broken}, test.want)
		})
	}
}

// What forget drops of the protocol as it is must change no verdict. It drops
// little where a rule is broken: here, none that there is.
func TestForget(t *testing.T) {
	if testing.Short() {
		t.Skip("more states than a short test visits")
	}
	_, small := bounds()
	t.Run("move", func(t *testing.T) { wantHolds(t, Model{Bounds: small, FeedDeletes: true, Broken: "nothing"}) })
	t.Run("copy", func(t *testing.T) { wantHolds(t, Model{Bounds: small, Copy: true, Broken: "nothing"}) })
}
