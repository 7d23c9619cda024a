package records

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// Origin is the part of a question that says what measured. An answer of another build, mode or model is never taken for one of this.
type Origin struct {
	Program    string `json:"program"`    // version and kernels
	Build      string `json:"build"`      // SHA-256 of the executable, which holds the engine
	Coarse     bool   `json:"coarse"`     // prefill with 8 bits of queries and weights (HEXKV_COARSE)
	GPULayers  int    `json:"gpu_layers"` // -1: all
	Threads    int    `json:"threads"`    // as asked for; llama.cpp splits the sums of a decode over f16 by them
	CPUs       int    `json:"cpus"`       // of the machine: threads that were not asked for depend on it
	Model      string `json:"model"`      // name of the file, without its folder
	ModelBytes int64  `json:"model_bytes"`
	ModelHash  string `json:"model_hash"` // see [ModelHash]
}

// NewOrigin fills in what it finds by itself: the build, the mode, and the facts of the model at path.
func NewOrigin(program, path string, gpuLayers, threads int) (Origin, error) {
	o := Origin{Program: program, GPULayers: gpuLayers, Threads: threads, CPUs: runtime.NumCPU(), Model: filepath.Base(path),
		Coarse: os.Getenv("HEXKV_COARSE") != "0"} // as hex_coarse_get reads it
	var err error
	if o.Build, err = build(); err != nil {
		return o, fmt.Errorf("the running program cannot be read to tell builds apart (%w); mount /proc", err)
	}
	if o.ModelBytes, o.ModelHash, err = ModelHash(path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		err = nil // opening it as a model says it better
	}
	return o, err
}

// build is the hash of the running program. The link in /proc leads to it also when its file was replaced meanwhile.
var build = sync.OnceValues(func() (string, error) {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
})

const (
	hashBlock  = 64 << 10
	hashBlocks = 1024
)

// ModelHash returns the size of a file and the SHA-256 of 1,024 blocks of 64 KiB that are spread evenly over it, the first and the
// last included; of a file of at most as many bytes (64 MiB), of all. Models of tens of gigabytes would take a minute otherwise. A change that
// lies between two blocks is not seen: it is smaller than a thousandth of the file.
func ModelHash(path string) (size int64, hash string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, "", err
	}
	if size = info.Size(); !info.Mode().IsRegular() {
		return size, "", nil // opening it as a model says what is wrong
	}
	sum := sha256.New()
	if size <= hashBlock*hashBlocks {
		_, err = io.Copy(sum, file)
	} else {
		for i := int64(0); i < hashBlocks && err == nil; i++ {
			at := (size - hashBlock) / (hashBlocks - 1) * i
			if i == hashBlocks-1 {
				at = size - hashBlock
			}
			_, err = io.Copy(sum, io.NewSectionReader(file, at, hashBlock))
		}
	}
	return size, hex.EncodeToString(sum.Sum(nil)), err
}
