package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/hexkv/hexkv/cmd/hexrun/internal/kld"
	"github.com/hexkv/hexkv/hexkv"
)

// predictions are those of the last decode of a session, from a row on.
type predictions struct {
	s    *hexkv.Session
	from int
}

// compareChunk appends the comparison of n predictions with those of ref; next are the tokens that came. The rows are spread
// over the CPUs, since nothing decodes meanwhile.
func compareChunk(ref, other predictions, rows []kld.Row, n int, next []hexkv.TokenID) ([]kld.Row, error) {
	chunk := make([]kld.Row, n)
	var (
		mu     sync.Mutex // a session serves one goroutine at a time
		at     int
		failed error
		wg     sync.WaitGroup
	)
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var a, b []float32
			for {
				mu.Lock()
				i := at
				at++
				if i < n && failed == nil {
					if a, failed = ref.s.Logits(a[:0], ref.from+i); failed == nil {
						b, failed = other.s.Logits(b[:0], other.from+i)
					}
				}
				stop := i >= n || failed != nil
				mu.Unlock()
				if stop {
					return
				}
				target := -1
				if i < len(next) {
					target = int(next[i])
				}
				chunk[i] = kld.Compare(a, b, target)
			}
		}()
	}
	wg.Wait()
	return append(rows, chunk...), failed
}

// peakResident returns the largest resident size that this process had, 0 where the system does not say.
func peakResident() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseUint(fields[0], 10, 64)
	return kib << 10
}
