// Package journal keeps what hexrun eval has measured, so that a run which was interrupted goes on where it stopped.
//
// The file has one JSON object on each line, one line for each setting and window, appended when the window is finished. Lines
// carry all that their numbers depend on, so one file can serve many runs, and a line is never used for another question.
package journal

import (
	"errors"
	"fmt"
	"os"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
)

// Key says what was measured.
type Key struct {
	Program    string `json:"program"` // version and kernels: others may round differently
	Model      string `json:"model"`   // name of the file, without its folder
	ModelBytes int64  `json:"model_bytes"`
	Text       string `json:"text"`   // SHA-256
	First      int    `json:"first"`  // token of the text where the window begins
	Tokens     int    `json:"tokens"` // of the window
	Step       int    `json:"step"`
	Cache      string `json:"cache"` // specification
}

// Result is what one window gave.
type Result struct {
	NCtx           int       `json:"n_ctx"`
	KVBytes        uint64    `json:"kv_bytes"`
	BitsPerElement float64   `json:"bits_per_element"`
	RefinedCells   float64   `json:"refined_cells"` // mean over layers and KV heads
	Rows           []kld.Row `json:"-"`             // in columns, see line
}

// Journal holds results, and appends new ones to its file.
type Journal struct {
	file    *os.File // nil: memory only
	path    string
	results map[Key]Result
}

// New returns a journal without a file.
func New() *Journal { return &Journal{results: map[Key]Result{}} }

// Open reads the journal at path, or begins it. A last line that was not written to its end is dropped. A file that is no
// journal, or is damaged elsewhere, is refused and left as it is.
func Open(path string) (*Journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, fileError(path, err)
	}
	j := &Journal{file: file, path: path}
	if err := j.load(); err != nil {
		file.Close()
		return nil, err
	}
	return j, nil
}

func (j *Journal) load() error {
	data, err := os.ReadFile(j.path)
	if err != nil {
		return fileError(j.path, err)
	}
	results, whole, err := Parse(j.path, data)
	if err != nil {
		return err
	}
	if whole < len(data) {
		if err := j.file.Truncate(int64(whole)); err != nil {
			return fileError(j.path, err)
		}
	}
	j.results = results
	return nil
}

// Find returns what was measured for key.
func (j *Journal) Find(key Key) (Result, bool) {
	r, ok := j.results[key]
	return r, ok
}

// Add keeps a result; when it returns, the line is on the disk.
func (j *Journal) Add(key Key, r Result) error {
	if j.file == nil {
		j.results[key] = r
		return nil
	}
	line, err := format(key, r)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(line); err != nil { // one call, so that a line is whole or the last
		return fileError(j.path, err)
	}
	if err := j.file.Sync(); err != nil {
		return fileError(j.path, err)
	}
	j.results[key] = r
	return nil
}

// Close closes the file.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}

func fileError(path string, err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("the journal %s cannot be used (%w); name a file that can be written with --resume", path, err)
}
