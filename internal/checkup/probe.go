package checkup

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
	absent      bool     // since it could not be created
	fixed       bool     // since this account may not replace objects
}

// probes lists the checks that try each operation of a run, and clean up. Cloud Storage accepts about
// one change of a name per second: the client waits if that is exceeded.
func (k *checkup) probes() []check {
	name := probeName(k.store.StagedFolder())
	p := &probe{checkup: k, name: name, moved: name + "-moved"}
	states, folder := k.cfg.StateBucket, k.store.StagedURL(k.store.StagedFolder())
	return []check{
		{"probe_create", states, p.try("creating a probe object in "+folder, "storage.objects.create", "created a probe object in "+folder, p.create)},
		{"probe_read", states, p.try("reading the probe object", "storage.objects.get", "the probe object was read back byte for byte", p.read)},
		{"probe_replace", states, p.try("replacing the probe object", "storage.objects.delete", "it was replaced on a condition that holds", p.replace)},
		{"probe_condition", states, p.try("replacing the probe object on a condition that does not hold", "storage.objects.delete", "replacing it on a condition that does not hold was refused", p.condition)},
		{"probe_list", states, p.try("listing staged objects", "storage.objects.list", "it is listed", p.list)},
		{"probe_move", states, p.try("moving the probe object", "storage.objects.move", "it was renamed", p.move)},
		{"probe_delete", states, p.remove},
	}
}

// try makes a check of an operation; success is what it finds if there is no error.
func (p *probe) try(doing, permission, success string, operation func(context.Context) error) func(context.Context) Finding {
	return func(ctx context.Context) Finding {
		if p.retained || p.absent {
			return p.missing()
		}
		err := operation(ctx)
		if err == nil {
			return good("%s", success)
		}
		if own, ok := errors.AsType[*found](err); ok {
			return own.Finding
		}
		return p.refused(ctx, doing, err, p.forStaged(permission))
	}
}

func (p *probe) missing() Finding {
	if p.retained {
		return skipped("a probe object could not be removed: see retention")
	}
	return skipped("there is no probe object to try it with: see probe_create")
}

// found is the error of an operation that has a finding of its own: it was not refused, but did not
// do what it should, or it makes no sense.
type found struct{ Finding }

func (f *found) Error() string { return f.Detail }

const probeType = "text/plain"

func probeName(folder string) string { return folder + "probe-" + strings.ToLower(rand.Text()) }

func (p *probe) object() *storage.ObjectHandle { return p.store.States.Object(p.name) }

// write writes the probe. If the answer does not show whether it was applied, the object does.
func (p *probe) write(ctx context.Context, condition storage.Conditions) (*storage.ObjectAttrs, error) {
	data := []byte("A probe of auditlog check. It can be deleted.\n" + rand.Text() + "\n")
	attrs, err := p.store.Put(ctx, p.object().If(condition), probeType, data)
	if err != nil && store.StatusOf(err) != http.StatusForbidden {
		if there, landed := p.store.Holds(ctx, p.object(), data); landed {
			attrs, err = there, nil
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
	if err == nil {
		if held := heldBy(attrs); held != "" {
			err = &found{failure(store.Retained.Remedy(), "a new object in %s is under %s at once: the state could not be replaced", p.store.StagedURL(p.store.StagedFolder()), held)}
		}
	}
	p.absent = err != nil
	return err
}

func (p *probe) read(ctx context.Context) error {
	step, cancel := context.WithTimeout(ctx, p.store.Step)
	defer cancel()
	r, err := p.object().NewReader(step)
	if err != nil {
		return err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, 1<<10))
	if err == nil && !bytes.Equal(data, p.data) {
		err = &found{failure("talk to Cloud Storage itself: a proxy on the way changes or caches objects", "the probe object was read with other bytes than were written")}
	}
	return err
}

func (p *probe) replace(ctx context.Context) error {
	_, err := p.write(ctx, storage.Conditions{GenerationMatch: p.generation})
	p.fixed = store.StatusOf(err) == http.StatusForbidden
	return err
}

// dropsConditions is the remedy where a precondition that fails has no effect.
const dropsConditions = "talk to Cloud Storage itself: a proxy or emulator on the way drops the preconditions of requests"

// condition tries writes that must be refused: the commit relies on that.
func (p *probe) condition(ctx context.Context) error {
	if p.fixed {
		return &found{skipped("this account may not replace objects: see probe_replace")}
	}
	for _, c := range []storage.Conditions{{GenerationMatch: p.generation + 1}, {DoesNotExist: true}} {
		data := []byte("must not be written\n")
		attrs, err := p.store.Put(ctx, p.object().If(c), probeType, data)
		switch {
		case err == nil:
			p.generation, p.data, p.lax = attrs.Generation, data, true
			return &found{failure(dropsConditions, "the probe object was replaced on a condition that did not hold: two runs would overwrite each other's state")}
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
		err = &found{failure("talk to Cloud Storage itself: a proxy or emulator on the way lists wrongly", "the probe object is not listed")}
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
func (p *probe) remove(ctx context.Context) Finding {
	if len(p.made) == 0 {
		return p.missing()
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
		return failure(remedy, "%s may be left, for a run to remove after a day: %s", strings.Join(left, " and "), detail)
	}
	return good("it was deleted, and nothing is left of it")
}
