package checkup

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"example.com/auditlog/internal/store"
)

// probe is an object beside the staged ones, on which a checkup tries what a run does to those and
// to the state. If it is left behind, the sweep removes it.
type probe struct {
	*checkup
	name, moved string
	generation  int64
	data        []byte
	made        []string // names under which it may exist
}

// probe tries each operation of a run, and cleans up. Cloud Storage accepts about one change of a
// name per second: the client waits if that is exceeded.
func (k *checkup) probe(ctx context.Context) {
	name := k.store.StagedFolder() + "probe-" + strings.ToLower(rand.Text())
	p := &probe{checkup: k, name: name, moved: name + "-moved"}
	rest := []string{"probe_read", "probe_replace", "probe_condition", "probe_list", "probe_move"}
	if by := k.down[k.cfg.StateBucket+"/probe"]; by != "" {
		for _, check := range append([]string{"probe_create"}, append(rest, "probe_delete")...) {
			k.skip(check, "a probe object could not be removed: see %s", by)
		}
		return
	}
	folder := p.store.StagedURL(p.store.StagedFolder())
	if p.try(ctx, "probe_create", "creating a probe object in "+folder, "storage.objects.create", "created a probe object in "+folder, p.create) != nil {
		for _, check := range rest {
			k.skip(check, "there is no probe object to try it with: see probe_create")
		}
	} else {
		p.try(ctx, "probe_read", "reading the probe object", "storage.objects.get", "the probe object was read back byte for byte", p.read)
		err := p.try(ctx, "probe_replace", "replacing the probe object", "storage.objects.delete", "it was replaced on a condition that holds", p.replace)
		if store.StatusOf(err) == http.StatusForbidden {
			p.skip("probe_condition", "this account may not replace objects: see probe_replace")
		} else {
			p.try(ctx, "probe_condition", "replacing the probe object on a condition that does not hold", "storage.objects.delete", "replacing it on a condition that does not hold was refused", p.condition)
		}
		p.try(ctx, "probe_list", "listing staged objects", "storage.objects.list", "it is listed", p.list)
		p.try(ctx, "probe_move", "moving the probe object", "storage.objects.move", "it was renamed", p.move)
	}
	p.remove(ctx)
}

// wrong is an operation that is allowed, but does not do what it should.
type wrong struct{ detail, remedy string }

func (w *wrong) Error() string { return w.detail }

var errNotTried = errors.New("not tried")

// try tries an operation, and adds the finding: good if it succeeds.
func (p *probe) try(ctx context.Context, check, doing, permission, good string, operation func(context.Context) error) error {
	if !p.reachable(ctx, p.cfg.StateBucket, check) {
		return errNotTried
	}
	err := operation(ctx)
	var w *wrong
	switch {
	case err == nil:
		p.ok(check, "%s", good)
	case errors.As(err, &w):
		p.fail(check, w.remedy, "%s", w.detail)
	default:
		p.refused(ctx, check, doing, err, p.forStaged(permission))
	}
	return err
}

const probeType = "text/plain"

func (p *probe) object() *storage.ObjectHandle { return p.store.States.Object(p.name) }

// write writes the probe. If the answer does not show whether it was applied, the object does.
func (p *probe) write(ctx context.Context, condition storage.Conditions) (*storage.ObjectAttrs, error) {
	data := []byte("A probe of auditlog check. It can be deleted.\n" + rand.Text() + "\n")
	attrs, err := p.store.Put(ctx, p.object().If(condition), probeType, data)
	if err != nil && store.StatusOf(err) != http.StatusForbidden {
		if found, landed := p.store.Holds(ctx, p.object(), data); landed {
			attrs, err = found, nil
		}
	}
	if err != nil {
		return nil, err
	}
	p.generation, p.data = attrs.Generation, data
	return attrs, nil
}

func (p *probe) create(ctx context.Context) error {
	attrs, err := p.write(ctx, storage.Conditions{DoesNotExist: true})
	if status := store.StatusOf(err); status != http.StatusForbidden && status != http.StatusUnauthorized && !store.BucketMissing(err) {
		p.made = append(p.made, p.name)
	}
	if err != nil {
		return err
	}
	if held := heldBy(attrs); held != "" {
		return &wrong{fmt.Sprintf("a new object in %s is under %s at once: the state could not be replaced", p.store.StagedURL(p.store.StagedFolder()), held), store.Retained.Remedy()}
	}
	return nil
}

func (p *probe) read(ctx context.Context) error {
	step, cancel := context.WithTimeout(ctx, p.store.Step)
	defer cancel()
	r, err := p.object().NewReader(step)
	if err != nil {
		return err
	}
	defer r.Close()
	found, err := io.ReadAll(io.LimitReader(r, 1<<10))
	if err == nil && !bytes.Equal(found, p.data) {
		err = &wrong{"the probe object was read with other bytes than were written", "talk to Cloud Storage itself: a proxy on the way changes or caches objects"}
	}
	return err
}

func (p *probe) replace(ctx context.Context) error {
	_, err := p.write(ctx, storage.Conditions{GenerationMatch: p.generation})
	return err
}

// dropsConditions is the remedy where a precondition that fails has no effect.
const dropsConditions = "talk to Cloud Storage itself: a proxy or emulator on the way drops the preconditions of requests"

// condition tries writes that must be refused: the commit relies on that.
func (p *probe) condition(ctx context.Context) error {
	for _, c := range []storage.Conditions{{GenerationMatch: p.generation + 1}, {DoesNotExist: true}} {
		data := []byte("must not be written\n")
		attrs, err := p.store.Put(ctx, p.object().If(c), probeType, data)
		switch {
		case err == nil:
			p.generation, p.data, p.lax = attrs.Generation, data, true
			return &wrong{"the probe object was replaced on a condition that did not hold: two runs would overwrite each other's state", dropsConditions}
		case store.StatusOf(err) != http.StatusPreconditionFailed:
			return err
		}
	}
	return nil
}

func (p *probe) list(ctx context.Context) error {
	step, cancel := context.WithTimeout(ctx, p.store.Step)
	defer cancel()
	attrs, err := p.store.States.Objects(step, &storage.Query{Prefix: p.name}).Next()
	if errors.Is(err, iterator.Done) || err == nil && attrs.Name != p.name {
		err = &wrong{"the probe object is not listed", "talk to Cloud Storage itself: a proxy or emulator on the way lists wrongly"}
	}
	return err
}

func (p *probe) move(ctx context.Context) error {
	step, cancel := context.WithTimeout(ctx, p.store.Step)
	defer cancel()
	p.made = append(p.made, p.moved)
	_, err := p.object().If(storage.Conditions{GenerationMatch: p.generation}).Move(step, storage.MoveObjectDestination{
		Object: p.moved, Conditions: &storage.Conditions{DoesNotExist: true},
	})
	if err != nil && store.StatusOf(err) != http.StatusForbidden {
		if _, landed := p.store.Holds(ctx, p.store.States.Object(p.moved), p.data); landed {
			err = nil
		}
	}
	return err
}

// remove deletes the probe, whatever its name is by now, even after an interrupt.
func (p *probe) remove(ctx context.Context) {
	const check = "probe_delete"
	if len(p.made) == 0 {
		p.skip(check, "there is no probe object to try it with: see probe_create")
		return
	}
	var left []string
	var first error
	for _, name := range p.made {
		if err := p.store.DeleteStaged(context.WithoutCancel(ctx), name); err != nil {
			left, first = append(left, p.store.StagedURL(name)), cmp.Or(first, err)
		}
	}
	if first != nil {
		detail, remedy := p.explainStorage(first, p.forStaged("storage.objects.delete"))
		p.fail(check, remedy, "%s may be left, for a run to remove after a day: %s", strings.Join(left, " and "), detail)
		return
	}
	p.ok(check, "it was deleted, and nothing is left of it")
}
