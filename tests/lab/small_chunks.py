import os, sys
import fetcher.artifact as artifact
artifact.CHUNK_SIZE = int(os.environ["WEIGHTLIFT_TEST_CHUNK"])
from fetcher.cli import main
sys.exit(main())
