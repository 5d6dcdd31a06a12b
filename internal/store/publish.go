package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"

	"cloud.google.com/go/storage"

	"example.com/auditlog/internal/names"
	"example.com/auditlog/internal/state"
)

// Publish moves the staged object under the feed prefix. Whether that is still to do is seen from
// the staged object, not from the final one: the feed may have taken and deleted that. It returns
// the final name, or "" if the object had been published before.
func (s *Store) Publish(ctx context.Context, staging state.Staging, final string) (string, error) {
	for range 100 {
		err := s.moveToFeed(ctx, staging, final)
		if err == nil {
			return final, nil
		}
		// Another instance may have published it; or this one has, and the answer was lost.
		found, lookErr := s.staged(ctx, staging)
		switch {
		case lookErr == nil && !staging.Stages(found):
			return "", nil
		case lookErr != nil:
			return "", fmt.Errorf("publishing %s as %s: %w; and whether it is done could not be read: %v", s.StagedURL(staging.Staged), s.FeedURL(final), Hint(err), lookErr)
		case !errors.Is(err, errConflict):
			return "", fmt.Errorf("publishing %s as %s: %w", s.StagedURL(staging.Staged), s.FeedURL(final), Hint(err))
		}
		final = names.Next(final) // another program, such as the Python function, has this name
	}
	return "", fmt.Errorf("publishing %s: all names up to %s are taken", s.StagedURL(staging.Staged), s.FeedURL(final))
}

// errConflict means that the final name is taken, or that the staged object is not the committed
// one: the answers do not distinguish these.
var errConflict = errors.New("the name is taken, or the staged object is another one")

// moveToFeed makes the staged object the final one. Within a bucket that is an atomic rename: after a
// crash the object is either staged or published. From a state bucket it is a copy, then a delete.
func (s *Store) moveToFeed(ctx context.Context, staging state.Staging, final string) error {
	src := s.States.Object(staging.Staged)
	if staging.StagedGeneration != 0 {
		src = src.If(storage.Conditions{GenerationMatch: staging.StagedGeneration})
	}
	if s.OneBucket() {
		err := s.move(ctx, src, storage.MoveObjectDestination{
			Object:     final,
			Conditions: &storage.Conditions{DoesNotExist: true},
		})
		if StatusOf(err) == http.StatusPreconditionFailed {
			return errConflict
		}
		return err
	}

	dst := s.Feed.Object(final)
	err := s.try(ctx, func(ctx context.Context) error {
		_, err := dst.If(storage.Conditions{DoesNotExist: true}).CopierFrom(src).Run(ctx)
		return err
	})
	if err != nil {
		// Only the content of an existing object shows whether it is this copy or somebody else's.
		same, lookErr := s.sameContent(ctx, s.States.Object(staging.Staged), dst)
		switch {
		case lookErr != nil:
			return fmt.Errorf("%w; and what is there could not be compared: %s", err, Plain(lookErr))
		case !same:
			return errConflict
		}
	}
	return s.DeleteStaged(ctx, staging.Staged)
}

func (s *Store) move(ctx context.Context, from *storage.ObjectHandle, to storage.MoveObjectDestination) error {
	return s.try(ctx, func(ctx context.Context) error {
		_, err := from.Move(ctx, to)
		return err
	})
}

// sameContent reports whether both objects exist and hold the same bytes.
func (s *Store) sameContent(ctx context.Context, a, b *storage.ObjectHandle) (bool, error) {
	left, err := s.attrs(ctx, a)
	if err != nil {
		return false, err
	}
	right, err := s.attrs(ctx, b)
	if err != nil {
		return false, err
	}
	return left.Size == right.Size && left.CRC32C == right.CRC32C, nil
}

// FindStaged returns the generation of the object under the staged object's name, 0 for none. Its listing
// serves the sweep, too: others are what else is staged in the same folder.
func (s *Store) FindStaged(ctx context.Context, staging state.Staging) (generation int64, others []*storage.ObjectAttrs, err error) {
	folder := s.StagedFolder()
	if staging.Staged != "" {
		folder = path.Dir(staging.Staged) + "/"
	}
	listed, err := s.list(ctx, folder)
	if err != nil {
		return 0, nil, fmt.Errorf("looking for what is staged in %s: %w", s.StagedURL(folder), Hint(err))
	}
	for _, o := range listed {
		switch {
		case o.Name == staging.Staged:
			generation = o.Generation
		case path.Dir(o.Name)+"/" == s.StagedFolder(): // not kept/, nor where another STATE_KEY staged
			others = append(others, o)
		}
	}
	return generation, others, nil
}

// LookStaged returns the object under the staged object's name, nil for none. The error is the
// storage client's.
func (s *Store) LookStaged(ctx context.Context, staging state.Staging) (*storage.ObjectAttrs, error) {
	return s.look(ctx, staging.Staged)
}

// staged returns the generation of the object under the staged object's name, 0 for none.
func (s *Store) staged(ctx context.Context, staging state.Staging) (generation int64, err error) {
	found, err := s.look(ctx, staging.Staged)
	switch {
	case err != nil:
		return 0, fmt.Errorf("looking for %s: %w", s.StagedURL(staging.Staged), Hint(err))
	case found == nil:
		return 0, nil
	}
	return found.Generation, nil
}

// KeepAside moves an object with the staged one's name and another generation to where no sweep removes
// it, and returns its name there.
//
// It may be an upload that was sent twice and arrived again after the move: then its records have been
// published. Or it is the staged object itself, rewritten or restored: then they have not. If the final
// object has the same content, they have: KeepAside returns "", and the sweep may remove this one. Else
// the feed has taken the final object, or it never existed; only the feed's side knows.
func (s *Store) KeepAside(ctx context.Context, staging state.Staging, generation int64) (string, error) {
	from := s.StagedURL(staging.Staged)
	switch same, err := s.sameContent(ctx, s.States.Object(staging.Staged), s.Feed.Object(staging.LastObject)); {
	case same:
		return "", nil
	case err != nil && !errors.Is(err, storage.ErrObjectNotExist) && StatusOf(err) != http.StatusForbidden: // a collector need only be allowed to create there
		return "", fmt.Errorf("comparing %s with %s: %w", from, s.FeedURL(staging.LastObject), Hint(err))
	}
	name := fmt.Sprintf("%s/kept/%d-%s", path.Dir(staging.Staged), generation, path.Base(staging.Staged))
	src := s.States.Object(staging.Staged).If(storage.Conditions{GenerationMatch: generation})
	err := s.move(ctx, src, storage.MoveObjectDestination{Object: name})
	if err == nil {
		return name, nil
	}
	found, lookErr := s.staged(ctx, staging)
	switch {
	case lookErr != nil:
		return "", fmt.Errorf("moving %s to %s: %w; and whether it is done could not be read: %v", from, s.StagedURL(name), Hint(err), lookErr)
	case found == 0:
		return name, nil // by this request, or by another instance's
	}
	return "", fmt.Errorf("moving %s to %s: %w", from, s.StagedURL(name), Hint(err))
}
