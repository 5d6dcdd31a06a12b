package verify

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"example.com/auditlog/internal/audit"
)

// entry is what is kept of a record: who it is, and hashes of what is in it.
type entry struct {
	audit.Identity
	Line    uint64   // hash of the line
	Members []uint32 // see members
	From    int      // the piece or the object that it comes from
	Row     int      // its line in the object, from 1
}

// The sides that are compared.
const (
	ofAPI  = "api"
	ofFeed = "feed"
)

// spill keeps the entries of both sides in files, one of each side and day, so that memory holds one day.
// The files have ids of records, and hashes: nothing of what happened.
type spill struct {
	dir string
	mu  sync.Mutex
}

func newSpill() (*spill, error) {
	dir, err := os.MkdirTemp("", "auditlog-verify-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for what is read: %w", err)
	}
	return &spill{dir: dir}, nil
}

func (s *spill) remove() { os.RemoveAll(s.dir) }

func (s *spill) file(side string, d int64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%d", side, d))
}

// pages collects the entries of one source until they are many.
type pages struct {
	spill *spill
	side  string
	days  map[int64][]byte
	size  int
}

func (s *spill) pages(side string) *pages {
	return &pages{spill: s, side: side, days: map[int64][]byte{}}
}

func (p *pages) add(e entry) error {
	b := p.days[e.At/day]
	before := len(b)
	b = binary.AppendVarint(b, e.At)
	b = binary.LittleEndian.AppendUint64(b, e.Type)
	b = binary.LittleEndian.AppendUint64(b, e.Line)
	for _, n := range []int{e.From, e.Row, len(e.ID), len(e.Members)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = append(b, e.ID...)
	for _, m := range e.Members {
		b = binary.LittleEndian.AppendUint32(b, m)
	}
	p.days[e.At/day] = b
	if p.size += len(b) - before; p.size > 256<<10 {
		return p.flush()
	}
	return nil
}

func (p *pages) flush() error {
	p.spill.mu.Lock()
	defer p.spill.mu.Unlock()
	for d, b := range p.days {
		f, err := os.OpenFile(p.spill.file(p.side, d), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
	}
	clear(p.days)
	p.size = 0
	return nil
}

// entries yields those of a side and day, in no order.
func (s *spill) entries(side string, d int64) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		f, err := os.Open(s.file(side, d))
		if os.IsNotExist(err) {
			return
		}
		if err != nil {
			yield(entry{}, err)
			return
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, 256<<10)
		for {
			e, err := readEntry(r)
			if err == io.EOF || !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// readEntry returns io.EOF at the end, and io.ErrUnexpectedEOF within an entry.
func readEntry(r *bufio.Reader) (e entry, err error) {
	if e.At, err = binary.ReadVarint(r); err != nil {
		return e, err
	}
	var hashes [16]byte
	_, err = io.ReadFull(r, hashes[:])
	e.Type, e.Line = binary.LittleEndian.Uint64(hashes[:8]), binary.LittleEndian.Uint64(hashes[8:])
	var numbers [4]uint64
	for i := range numbers {
		if err == nil {
			numbers[i], err = binary.ReadUvarint(r)
		}
	}
	if err != nil {
		return e, noEOF(err)
	}
	e.From, e.Row = int(numbers[0]), int(numbers[1])
	rest := make([]byte, numbers[2]+4*numbers[3])
	if _, err := io.ReadFull(r, rest); err != nil {
		return e, noEOF(err)
	}
	e.ID = string(rest[:numbers[2]])
	for b := rest[numbers[2]:]; len(b) > 0; b = b[4:] {
		e.Members = append(e.Members, binary.LittleEndian.Uint32(b))
	}
	return e, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
