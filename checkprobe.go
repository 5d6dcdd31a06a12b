package auditlog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"
)

// probe is an object beside the staged ones, with which a checkup tries what a
// run does to those and to the state. Should it be left, the sweep removes it.
type probe struct {
	*checkup
	name, moved string
	generation  int64
	data        []byte
	made        []string // names under which it may exist
}

// probe tries each operation of a run, and cleans up. Cloud Storage takes about
// one change a second of one name: the client waits where that is too many.
func (k *checkup) probe(ctx context.Context) {
	name := k.cfg.stagedDir() + "probe-" + strings.ToLower(rand.Text())
	p := &probe{checkup: k, name: name, moved: name + "-moved"}
	rest := []string{"probe_read", "probe_replace", "probe_condition", "probe_list", "probe_move"}
	if by := k.down[k.cfg.StateBucket+"/probe"]; by != "" {
		for _, check := range append([]string{"probe_create"}, append(rest, "probe_delete")...) {
			k.skip(check, "a probe object could not be removed: see %s", by)
		}
		return
	}
	if !p.create(ctx) {
		for _, check := range rest {
			k.skip(check, "there is no probe object to try it with: see probe_create")
		}
	} else {
		p.read(ctx)
		p.condition(ctx, p.replace(ctx))
		p.list(ctx)
		p.move(ctx)
	}
	p.remove(ctx)
}

// put writes an object in one request. Where the answer does not say whether it
// was applied, what is there does.
func (k *checkup) put(ctx context.Context, object *storage.ObjectHandle, condition storage.Conditions, data []byte) (*storage.ObjectAttrs, error) {
	step, cancel := context.WithTimeout(ctx, k.cfg.stepTimeout())
	defer cancel()
	w := object.If(condition).NewWriter(step)
	w.ContentType = "text/plain"
	w.ChunkSize = 256 << 10
	w.CRC32C, w.SendCRC32C = checksum(data), true
	_, err := w.Write(data)
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	return w.Attrs(), err
}

func (p *probe) write(ctx context.Context, condition storage.Conditions) (*storage.ObjectAttrs, error) {
	data := []byte("A probe of auditlog check. It can be deleted.\n" + rand.Text() + "\n")
	object := p.states.Object(p.name)
	attrs, err := p.put(ctx, object, condition, data)
	if err != nil && statusOf(err) != http.StatusForbidden {
		step, cancel := context.WithTimeout(ctx, p.cfg.stepTimeout())
		defer cancel()
		if found, lookErr := object.Attrs(step); lookErr == nil && found.Size == int64(len(data)) && found.CRC32C == checksum(data) {
			attrs, err = found, nil
		}
	}
	if err != nil {
		return nil, err
	}
	p.generation, p.data = attrs.Generation, data
	return attrs, nil
}

func (p *probe) create(ctx context.Context) bool {
	const check = "probe_create"
	if !p.reachable(ctx, p.cfg.StateBucket, check) {
		return false
	}
	attrs, err := p.write(ctx, storage.Conditions{DoesNotExist: true})
	if status := statusOf(err); status != http.StatusForbidden && status != http.StatusUnauthorized && !missing(err) {
		p.made = append(p.made, p.name)
	}
	if err != nil {
		p.refused(ctx, check, "creating a probe object in "+p.stagedURL(p.cfg.stagedDir()), err, p.forStaged("storage.objects.create"))
		return false
	}
	if held := heldBy(attrs); held != "" {
		p.fail(check, p.unretain(), "a new object in %s is under %s at once: the state could not be replaced", p.stagedURL(p.cfg.stagedDir()), held)
		return false
	}
	p.ok(check, "created a probe object in %s", p.stagedURL(p.cfg.stagedDir()))
	return true
}

func (p *probe) read(ctx context.Context) {
	const check = "probe_read"
	if !p.reachable(ctx, p.cfg.StateBucket, check) {
		return
	}
	step, cancel := context.WithTimeout(ctx, p.cfg.stepTimeout())
	defer cancel()
	var found []byte
	r, err := p.states.Object(p.name).NewReader(step)
	if err == nil {
		found, err = io.ReadAll(io.LimitReader(r, 1<<10))
		r.Close()
	}
	switch {
	case err != nil:
		p.refused(ctx, check, "reading the probe object", err, p.forStaged("storage.objects.get"))
	case !bytes.Equal(found, p.data):
		p.fail(check, "talk to Cloud Storage itself: a proxy on the way changes or caches objects", "the probe object was read with other bytes than were written")
	default:
		p.ok(check, "the probe object was read back byte for byte")
	}
}

// replace reports whether replacing is allowed.
func (p *probe) replace(ctx context.Context) bool {
	const check = "probe_replace"
	if !p.reachable(ctx, p.cfg.StateBucket, check) {
		return true
	}
	if _, err := p.write(ctx, storage.Conditions{GenerationMatch: p.generation}); err != nil {
		p.refused(ctx, check, "replacing the probe object", err, p.forStaged("storage.objects.delete"))
		return statusOf(err) != http.StatusForbidden
	}
	p.ok(check, "it was replaced on a condition that holds")
	return true
}

// condition tries what must be refused: the commit rests on that.
func (p *probe) condition(ctx context.Context, replaceable bool) {
	const check = "probe_condition"
	if !p.reachable(ctx, p.cfg.StateBucket, check) {
		return
	}
	if !replaceable {
		p.skip(check, "this account may not replace objects: see probe_replace")
		return
	}
	for _, c := range []storage.Conditions{{GenerationMatch: p.generation + 1}, {DoesNotExist: true}} {
		attrs, err := p.put(ctx, p.states.Object(p.name), c, []byte("must not be written\n"))
		switch {
		case err == nil:
			p.generation, p.lax = attrs.Generation, true
			p.fail(check, "talk to Cloud Storage itself: a proxy or emulator on the way drops the preconditions of requests",
				"the probe object was replaced on a condition that did not hold: two runs would overwrite each other's state")
			return
		case statusOf(err) != http.StatusPreconditionFailed:
			p.refused(ctx, check, "replacing the probe object on a condition that does not hold", err, p.forStaged("storage.objects.delete"))
			return
		}
	}
	p.ok(check, "replacing it on a condition that does not hold was refused")
}

// list tries what the sweep needs; runs go on without it.
func (p *probe) list(ctx context.Context) {
	const check = "probe_list"
	if !p.reachable(ctx, p.cfg.StateBucket, check) {
		return
	}
	step, cancel := context.WithTimeout(ctx, p.cfg.stepTimeout())
	defer cancel()
	attrs, err := p.states.Objects(step, &storage.Query{Prefix: p.name}).Next()
	switch {
	case statusOf(err) == http.StatusForbidden:
		detail, remedy := p.explainStorage(err, p.forStaged("storage.objects.list"))
		p.warn(check, remedy, "listing staged objects: %s; leftovers of crashed runs are not removed", detail)
	case errors.Is(err, iterator.Done), err == nil && attrs.Name != p.name:
		p.fail(check, "talk to Cloud Storage itself: a proxy or emulator on the way lists wrongly", "the probe object is not listed")
	case err != nil:
		p.refused(ctx, check, "listing staged objects", err, p.forStaged("storage.objects.list"))
	default:
		p.ok(check, "it is listed")
	}
}

func (p *probe) move(ctx context.Context) {
	const check = "probe_move"
	if !p.reachable(ctx, p.cfg.StateBucket, check) {
		return
	}
	step, cancel := context.WithTimeout(ctx, p.cfg.stepTimeout())
	defer cancel()
	p.made = append(p.made, p.moved)
	_, err := p.states.Object(p.name).If(storage.Conditions{GenerationMatch: p.generation}).Move(step, storage.MoveObjectDestination{
		Object: p.moved, Conditions: &storage.Conditions{DoesNotExist: true},
	})
	if err != nil && statusOf(err) != http.StatusForbidden {
		look, cancel := context.WithTimeout(ctx, p.cfg.stepTimeout())
		defer cancel()
		if _, lookErr := p.states.Object(p.moved).Attrs(look); lookErr == nil {
			err = nil
		}
	}
	if err != nil {
		p.refused(ctx, check, "moving the probe object", err, p.forStaged("storage.objects.move"))
		return
	}
	p.ok(check, "it was renamed")
}

// remove deletes the probe, whatever its name is by now, also where the check
// was interrupted.
func (p *probe) remove(ctx context.Context) {
	const check = "probe_delete"
	if len(p.made) == 0 {
		p.skip(check, "there is no probe object to try it with: see probe_create")
		return
	}
	step, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.cfg.stepTimeout())
	defer cancel()
	var left []string
	var first error
	for _, name := range p.made {
		err := p.states.Object(name).Retryer(storage.WithPolicy(storage.RetryAlways)).Delete(step)
		if err != nil && (!errors.Is(err, storage.ErrObjectNotExist) || missing(err)) {
			left, first = append(left, p.stagedURL(name)), cmp.Or(first, err)
		}
	}
	if first != nil {
		detail, remedy := p.explainStorage(first, p.forStaged("storage.objects.delete"))
		p.fail(check, remedy, "%s may be left, for a run to remove after a day: %s", strings.Join(left, " and "), detail)
		return
	}
	p.ok(check, "it was deleted, and nothing is left of it")
}
