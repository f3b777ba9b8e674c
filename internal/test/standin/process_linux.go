package standin

import (
	"runtime"
	"syscall"
)

// The stand-in ends with the test binary, however that ends: a test that runs into its time limit
// is not asked first.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }

// wait starts the process and stays with it. Its parent is this thread, not this process, so the
// thread must not end before it (https://go.dev/issue/27505).
func (s *Server) wait(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := s.cmd.Start()
	started <- err
	if err == nil {
		s.err = s.cmd.Wait()
		close(s.ended)
	}
}
