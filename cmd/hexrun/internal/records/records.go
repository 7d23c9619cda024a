// Package records keeps finished parts of a long run in a file of JSON lines, so that a run which was interrupted goes on.
package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// File maps questions to answers. Both are written in full on each line, so one file can serve many runs, and an answer serves no
// other question. All that an answer depends on has to be in K: what measured is in [Origin]. An answer that has a method Check(K) error is asked, when it is read, whether it fits its question.
type File[K comparable, V any] struct {
	kind    string
	path    string
	file    *os.File // nil: memory only
	answers map[K]V
}

type line[K comparable, V any] struct {
	Kind   string `json:"kind"` // what every line begins with
	Key    K      `json:"key"`
	Answer V      `json:"answer"`
}

// Open reads the records of a kind at path, or begins them; without a path they stay in memory. A last line that was not written
// to its end is dropped. A file that holds something else, or is damaged elsewhere, is refused and left as it is.
func Open[K comparable, V any](kind, path string) (*File[K, V], error) {
	f := &File[K, V]{kind: kind, path: path, answers: map[K]V{}}
	if path == "" {
		return f, nil
	}
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

// parse takes whole lines and returns their length: less than all when the last one was not written to its end.
func (f *File[K, V]) parse(data []byte) (whole int, err error) {
	kind, err := json.Marshal(f.kind)
	if err != nil {
		return 0, err
	}
	marker := fmt.Appendf(nil, `{"kind":%s,`, kind)
	for n := 1; whole < len(data); n++ {
		text, _, ended := bytes.Cut(data[whole:], []byte("\n"))
		switch {
		case !ended && (bytes.HasPrefix(text, marker) || bytes.HasPrefix(marker, text)):
			return whole, nil // also when it happens to be valid: a number may have lost its last digits
		case !bytes.HasPrefix(text, marker) && n == 1:
			return 0, fmt.Errorf("%s is no file of %s; name another file with --resume", f.path, f.kind)
		case !bytes.HasPrefix(text, marker):
			return 0, fmt.Errorf("line %d of %s is not from %s; delete the line, or name another file with --resume", n, f.path, f.kind)
		}
		l, err := parseLine[K, V](text)
		if err != nil {
			return 0, fmt.Errorf("line %d of %s is damaged (%w); delete the line, or name another file with --resume", n, f.path, err)
		}
		f.answers[l.Key] = l.Answer
		whole += len(text) + 1
	}
	return whole, nil
}

func parseLine[K comparable, V any](text []byte) (l line[K, V], err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ends early")
		}
		return l, err
	}
	if _, err := d.Token(); err != io.EOF {
		return l, errors.New("more than one object")
	}
	if checked, ok := any(l.Answer).(interface{ Check(K) error }); ok {
		return l, checked.Check(l.Key)
	}
	return l, nil
}

// Find returns the answer to a question.
func (f *File[K, V]) Find(key K) (V, bool) {
	v, ok := f.answers[key]
	return v, ok
}

// Add keeps an answer; when it returns, the line is on the disk.
func (f *File[K, V]) Add(key K, answer V) error {
	if f.file != nil {
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
	}
	f.answers[key] = answer
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
