// Package records keeps finished parts of a long run in a file of JSON lines, so that a run which was interrupted goes on.
package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// File maps questions to answers. Both are written in full on each line, so an answer never serves another question.
type File[K comparable, V any] struct {
	kind    string
	path    string
	file    *os.File // nil: memory only
	answers map[K]V
}

type line[K comparable, V any] struct {
	Kind   string `json:"kind"`
	Key    K      `json:"key"`
	Answer V      `json:"answer"`
}

// New returns records without a file.
func New[K comparable, V any](kind string) *File[K, V] {
	return &File[K, V]{kind: kind, answers: map[K]V{}}
}

// Open reads the records of a kind at path, or begins them; without a path they stay in memory. A last line that was not written to its end is dropped. A file that
// holds something else is refused and left as it is.
func Open[K comparable, V any](kind, path string) (*File[K, V], error) {
	f := New[K, V](kind)
	if path == "" {
		return f, nil
	}
	f.path = path
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, f.fail(err)
	}
	whole, err := f.parse(data)
	if err != nil {
		return nil, err
	}
	if f.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666); err != nil {
		return nil, f.fail(err)
	}
	if whole < len(data) {
		if err := f.file.Truncate(int64(whole)); err != nil {
			f.file.Close()
			return nil, f.fail(err)
		}
	}
	return f, nil
}

// parse takes whole lines and returns their length.
func (f *File[K, V]) parse(data []byte) (whole int, err error) {
	for n := 1; whole < len(data); n++ {
		text, _, ended := bytes.Cut(data[whole:], []byte("\n"))
		var l line[K, V]
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		err := d.Decode(&l)
		switch {
		case err == nil && ended && l.Kind == f.kind:
			f.answers[l.Key] = l.Answer
		case !ended && n > 1:
			return whole, nil
		default:
			return 0, fmt.Errorf("line %d of %s is not from %s; delete the line, or name another file with --resume", n, f.path, f.kind)
		}
		whole += len(text) + 1
	}
	return whole, nil
}

// Find returns the answer to a question.
func (f *File[K, V]) Find(key K) (V, bool) {
	v, ok := f.answers[key]
	return v, ok
}

// Add keeps an answer; when it returns, the line is on the disk.
func (f *File[K, V]) Add(key K, answer V) error {
	f.answers[key] = answer
	if f.file == nil {
		return nil
	}
	data, err := json.Marshal(line[K, V]{f.kind, key, answer})
	if err != nil {
		return err
	}
	if _, err := f.file.Write(append(data, '\n')); err != nil { // one call, so that a line is whole or the last
		return f.fail(err)
	}
	if err := f.file.Sync(); err != nil {
		return f.fail(err)
	}
	return nil
}

// Close closes the file.
func (f *File[K, V]) Close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}

func (f *File[K, V]) fail(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("the file %s cannot be used (%w); name one that can be written with --resume", f.path, err)
}
